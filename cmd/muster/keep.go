package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/client"
	"github.com/muster-registry/muster/problem"
)

const (
	// silentFor is how long a registration may take before people are told that it
	// still tries.
	silentFor = 2 * time.Second
	// stopTimeout bounds a deregistration at the end, during which the user waits.
	stopTimeout = 5 * time.Second
)

// newClient makes a client of the nodes named by --addr, for what goes on for long.
// The caller closes it.
func newClient(g *global) (*client.Client, error) {
	a, err := newAPI(g)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Addrs: a.addrs, Transport: a.http.Transport, UserAgent: "muster/" + version, StopTimeout: stopTimeout})
}

// kept is an instance that is kept registered, and says how that goes.
type kept struct {
	inst    muster.Instance
	client  *client.Client
	session *client.Session
	leave   context.CancelFunc // begins the deregistration
	out     io.Writer
	json    bool
}

// newKept begins to keep inst registered until leave is called. A signal to this
// process does not end it.
func newKept(ctx context.Context, g *global, inst muster.Instance, out io.Writer) (*kept, error) {
	c, err := newClient(g)
	if err != nil {
		return nil, err
	}
	if inst.Weight == 0 {
		inst.Weight = client.NoTraffic
	}
	ctx, leave := context.WithCancel(context.WithoutCancel(ctx))
	s, err := c.Register(ctx, inst)
	if err != nil {
		leave()
		c.Close()
		return nil, err
	}
	return &kept{inst: inst, client: c, session: s, leave: leave, out: out, json: g.output == "json"}, nil
}

// follow tells every change of the session until it is over, and returns what it
// ended with, for the caller to print: nil when it was deregistered.
func (k *kept) follow() error {
	silence := time.NewTimer(silentFor)
	defer silence.Stop()
	for {
		select {
		case <-silence.C:
			if state, err := k.session.State(); state == client.StateRegistering {
				k.say(state, "is not registered yet; trying on", err)
			}
		case ch, ok := <-k.session.Changes():
			if !ok {
				_, err := k.session.State()
				return err
			}
			switch ch.State {
			case client.StateRegistering:
				silence.Reset(silentFor)
			case client.StateRegistered:
				k.say(ch.State, fmt.Sprintf("is registered at %s:%d", k.inst.Address, k.inst.Port), nil)
			case client.StateLost:
				k.say(ch.State, "may have been dropped: no node took a heartbeat in time; trying on", ch.Err)
			case client.StateFenced:
				k.over(ch.State, "is somebody else's now", ch.Err)
			case client.StateEnded:
				k.ended(ch.Err)
			}
		}
	}
}

func (k *kept) ended(err error) {
	switch {
	case err == nil:
		k.over(client.StateEnded, "is deregistered", nil)
	case muster.CodeOf(err) == client.CodeUnreachable || problem.Status(muster.CodeOf(err)) >= 500:
		k.over(client.StateEnded, "could not be deregistered and goes when its lease runs out", err)
	default:
		k.over(client.StateEnded, "is refused by the registry", err)
	}
}

// over tells the last change. People are told why by whoever called follow.
func (k *kept) over(state client.State, text string, err error) {
	if !k.json {
		err = nil
	}
	k.say(state, text, err)
}

// say tells people, or programs, how the instance stands.
func (k *kept) say(state client.State, text string, err error) {
	if k.json {
		line := map[string]any{"service": k.inst.Service, "id": k.inst.ID, "state": state}
		if err != nil {
			line["error"] = brief(err)
		}
		// Whoever reads it may be gone; the instance is kept all the same.
		_ = json.NewEncoder(k.out).Encode(line)
		return
	}
	if err != nil {
		text += ": " + brief(err)
	}
	fmt.Fprintf(k.out, "%s/%s %s\n", k.inst.Service, k.inst.ID, text)
}

// close lets the instance go, if that is still to be done, and waits for it.
func (k *kept) close() {
	k.leave()
	k.client.Close()
}

// keep keeps an instance registered until the context of the command ends.
func keep(cmd *cobra.Command, g *global, inst muster.Instance) error {
	if inst.ID == "" {
		inst.ID = endpointID(&inst)
	}
	k, err := newKept(cmd.Context(), g, inst, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	defer k.close()
	defer context.AfterFunc(cmd.Context(), k.leave)()
	if !k.json {
		fmt.Fprintf(cmd.OutOrStdout(), "keeping %s/%s registered; ctrl-C takes it away\n", inst.Service, inst.ID)
	}
	return k.follow()
}

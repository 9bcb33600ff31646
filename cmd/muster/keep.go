package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
)

// keep beats for an instance until ctx ends, registers it again when the registry
// has forgotten it, and takes it away at the end.
func keep(cmd *cobra.Command, a *api, inst muster.Instance, body map[string]any) error {
	ctx := cmd.Context()
	path := instancePath(inst.Service, inst.ID)
	q := query("namespace", inst.Namespace)
	fmt.Fprintf(cmd.OutOrStdout(), "keeping %s/%s alive; ctrl-C takes it away\n", inst.Service, inst.ID)
	wait := inst.TTL.Duration() / 3
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return takeAway(cmd, a, path, q, inst)
		case <-timer.C:
		}
		var beat muster.Beat
		_, err := a.call(ctx, http.MethodPut, path+"/heartbeat", q, nil, &beat)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, muster.CodeUnknownInstance):
			fmt.Fprintln(cmd.ErrOrStderr(), "the registry has forgotten the instance: registering it again")
			if _, err := a.call(ctx, http.MethodPut, path, q, body, nil); err != nil {
				printError(cmd.ErrOrStderr(), err)
			}
		case errors.Is(err, muster.CodeFenced):
			return err
		case err != nil:
			printError(cmd.ErrOrStderr(), err)
		default:
			wait = time.Duration(beat.Next)
		}
		// After a failure the next beat comes sooner, so that a few fit into the ttl.
		if err != nil {
			timer.Reset(min(wait, time.Second))
			continue
		}
		timer.Reset(wait)
	}
}

// takeAway deregisters at the end; the context of the command has ended by then.
func takeAway(cmd *cobra.Command, a *api, path string, q map[string][]string, inst muster.Instance) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 5*time.Second)
	defer cancel()
	if _, err := a.call(ctx, http.MethodDelete, path, q, nil, nil); err != nil {
		return fmt.Errorf("taking %s/%s away: %w", inst.Service, inst.ID, err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "deregistered %s/%s\n", inst.Service, inst.ID)
	return nil
}

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/durable"
	"github.com/muster-registry/muster/fsm"
	"github.com/muster-registry/muster/problem"
)

// exitCorrupt is the exit code of data that does not read back.
const exitCorrupt = 65

// sumHeader carries the SHA-256 of a backup.
const sumHeader = "Muster-Sha256"

func newSnapshot(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save, look into and bring back backups",
		Long: `A backup is the whole registry at one index: services, instances, leases, settings,
the journal. It checks itself, is written with mode 0600, and is restored into a
running cluster, the same or a new one, by its own operations: no index goes back,
and every lease gets a full ttl.`,
		Example: `  muster snapshot save muster.snapshot
  muster snapshot inspect muster.snapshot
  muster snapshot restore muster.snapshot --reason "lost by mistake"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSnapshotSave(g), newSnapshotInspect(g), newSnapshotRestore(g))
	return cmd
}

func newSnapshotSave(g *global) *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Write a backup to a file",
		Long: `Write a backup to a file, which takes its place only when it is whole and has been
read back. By default it holds every write acknowledged before; with --local it is
what the answering node has, also without a leader.`,
		Example: `  muster snapshot save muster.snapshot
  muster snapshot save --local /backup/$(date +%F).snapshot`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			path := "/v1/cluster/snapshot?consistency=linearizable"
			if local {
				path = "/v1/cluster/snapshot"
			}
			resp, err := a.stream(cmd.Context(), "GET", path, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			s, err := saveBackup(resp, args[0], newProgress(cmd, "saving", 0))
			if err != nil {
				return err
			}
			return printBackup(cmd, g, "saved "+args[0], s)
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "do not ask the leader whether the answering node is current")
	return cmd
}

func newSnapshotInspect(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Check a backup and say what is in it",
		Long:    "Read a whole backup, check it, and say what is in it. Exit code 65 where it is damaged.",
		Example: `  muster snapshot inspect muster.snapshot -o json`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := inspectBackup(args[0])
			if err != nil {
				return err
			}
			return printBackup(cmd, g, args[0], s)
		},
	}
}

func newSnapshotRestore(g *global) *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the content of the registry by a backup",
		Long: `Replace all services, instances, leases and settings of a running cluster by those
of a backup. The cluster keeps its id, members, journal and governor switch. While
it goes on other writes are answered 503; where it fails nothing has changed.`,
		Example: `  muster snapshot restore muster.snapshot --reason "lost by mistake"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := newAPI(g)
			if err != nil {
				return err
			}
			s, err := inspectBackup(args[0])
			if err != nil {
				return err
			}
			if err := confirm(cmd, yes, fmt.Sprintf("This replaces all that is registered by %d instances of %d services, as of %s.",
				s.Instances, s.Services, s.Time.Local().Format("2006-01-02 15:04:05"))); err != nil {
				return err
			}
			index, err := restoreBackup(cmd, a, args[0], s, reason)
			for tries := 1; tries < restoreTries && transient(err); tries++ {
				// The leader changed, or another restore goes on: nothing has happened.
				fmt.Fprintf(cmd.ErrOrStderr(), "muster: %v; trying again\n", err)
				select {
				case <-time.After(time.Second):
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				}
				index, err = restoreBackup(cmd, a, args[0], s, reason)
			}
			if err != nil {
				return err
			}
			return said(cmd, g, index, "restored %s: %d instances of %d services", args[0], s.Instances, s.Services)
		},
	}
	reasonFlag(cmd, &reason)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask on a terminal")
	return cmd
}

// restoreTries is how often a restore is begun.
const restoreTries = 5

// transient reports whether err is a refusal that says that nothing has happened,
// and may not be said the next time.
func transient(err error) bool {
	e, ok := errors.AsType[*muster.Error](err)
	return ok && (e.Code == muster.CodeNoLeader || e.Code == muster.CodeCatchingUp || e.Code == muster.CodeOverloaded)
}

// backup is what a file holds.
type backup struct {
	fsm.Summary
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func printBackup(cmd *cobra.Command, g *global, subject string, s backup) error {
	if g.output == "json" {
		return printJSON(cmd, s)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), `%s
  cluster    %s
  as of      %s, index %d
  holds      %d instances of %d services, %d leases, settings of %d services, %d events
  size       %d bytes
  sha256     %s
`, subject, s.ClusterID, s.Time.Local().Format("2006-01-02 15:04:05"), s.Index, s.Instances, s.Services, s.Leases, s.Settings, s.Events, s.Bytes, s.SHA256)
	return err
}

// inspectBackup reads and checks a whole file.
func inspectBackup(name string) (backup, error) {
	f, err := os.Open(name)
	if err != nil {
		return backup{}, fmt.Errorf("opening the backup: %w", err)
	}
	defer f.Close()
	sum, n := sha256.New(), &counter{}
	s, err := fsm.Inspect(io.TeeReader(f, io.MultiWriter(sum, n)))
	if err != nil {
		return backup{}, &codedExit{exitCorrupt, fmt.Errorf("%s is no backup that can be restored: %w", name, err)}
	}
	return backup{Summary: s, Bytes: n.n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

// saveBackup writes an answer to a file beside name, reads it back, and only then
// puts it in its place.
func saveBackup(resp *http.Response, name string, p *progress) (s backup, err error) {
	f, err := durable.Create(name, 0o600)
	if err != nil {
		return s, fmt.Errorf("creating the backup: %w", err)
	}
	defer func() { err = errors.Join(err, f.Discard()) }()
	_, err = io.Copy(io.MultiWriter(f, p), resp.Body)
	p.end()
	if err != nil {
		return s, fmt.Errorf("writing the backup: %w", err)
	}
	if s, err = inspectBackup(f.Name()); err != nil {
		return s, err
	}
	if told := resp.Trailer.Get(sumHeader); told != s.SHA256 {
		return s, &codedExit{exitCorrupt, fmt.Errorf("the backup that arrived has the SHA-256 %s, the node sent %q: try again", s.SHA256, told)}
	}
	if err = f.Commit(); err != nil {
		return s, fmt.Errorf("putting the backup in its place: %w", err)
	}
	return s, nil
}

// restoreBackup sends a file and returns the index of what was restored.
func restoreBackup(cmd *cobra.Command, a *api, name string, s backup, reason string) (string, error) {
	path := "/v1/cluster/snapshot"
	if q := query("reason", reason); len(q) > 0 {
		path += "?" + q.Encode()
	}
	p := newProgress(cmd, "restoring", s.Bytes)
	defer p.end()
	resp, err := a.stream(cmd.Context(), "PUT", path, func(req *http.Request) error {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("opening the backup: %w", err)
		}
		p.done = 0
		req.Body, req.ContentLength = &toldFile{f, p}, s.Bytes
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set(sumHeader, s.SHA256)
		return nil
	})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return resp.Header.Get("Muster-Index"), nil
}

// toldFile tells w of what is read.
type toldFile struct {
	f *os.File
	w io.Writer
}

func (t *toldFile) Read(b []byte) (int, error) {
	n, err := t.f.Read(b)
	_, _ = t.w.Write(b[:n])
	return n, err
}

func (t *toldFile) Close() error { return t.f.Close() }

// stream sends one request that may take long, to the first node that can be
// reached. An answer that is a refusal is an error.
func (a *api) stream(ctx context.Context, method, path string, prepare func(*http.Request) error) (*http.Response, error) {
	client := *a.http
	client.Timeout = 0 // only ctx ends it
	resp, err := a.ask(ctx, &client, "look before you repeat it", func(addr string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, addr+path, nil)
		if err == nil && prepare != nil {
			err = prepare(req)
		}
		return req, err
	})
	if err != nil || resp.StatusCode < 400 {
		return resp, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return nil, problem.Decode(resp.StatusCode, b)
}

// progress tells a person on a terminal how far a copy has come.
type progress struct {
	w           io.Writer // nil: nobody looks
	what        string
	done, total int64
	told        time.Time
}

func newProgress(cmd *cobra.Command, what string, total int64) *progress {
	p := &progress{what: what, total: total}
	if f, ok := cmd.ErrOrStderr().(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		p.w = f
	}
	return p
}

func (p *progress) Write(b []byte) (int, error) {
	p.done += int64(len(b))
	if p.w != nil && time.Since(p.told) > 200*time.Millisecond {
		p.told = time.Now()
		p.show()
	}
	return len(b), nil
}

func (p *progress) show() {
	if p.total > 0 {
		fmt.Fprintf(p.w, "\r%s %.1f of %.1f MiB (%d %%) ", p.what, mib(p.done), mib(p.total), 100*p.done/p.total)
		return
	}
	fmt.Fprintf(p.w, "\r%s %.1f MiB ", p.what, mib(p.done))
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func (p *progress) end() {
	if p.w != nil && !p.told.IsZero() {
		p.show()
		fmt.Fprintln(p.w)
		p.w = nil
	}
}

// confirm asks a person on a terminal; a program is not asked.
func confirm(cmd *cobra.Command, yes bool, what string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if yes || !ok || !isatty.IsTerminal(in.Fd()) {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType \"yes\" to go on: ", what)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("not confirmed: nothing was done")
	}
	return nil
}

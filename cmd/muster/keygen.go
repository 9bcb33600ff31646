package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/muster-registry/muster/cluster/peer"
)

func newKeygen(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen",
		Short: "Make a cluster key",
		Long: `Print a new cluster key for muster server --cluster-key-file: 32 random bytes in
base64. All nodes get the same file. To change the key without an outage, restart the
nodes one after the other three times: with the new key as second line, with it as
first line, and with the old one taken out.`,
		Example: `  (umask 077; muster keygen > cluster.key)`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := make([]byte, peer.KeySize)
			rand.Read(key)
			text := base64.StdEncoding.EncodeToString(key)
			if g.output == "json" {
				return printJSON(cmd, map[string]string{"key": text})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
}

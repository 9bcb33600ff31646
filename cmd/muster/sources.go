package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// applySources gives each flag that is not on the command line its value from
// the environment, or else from the configuration file.
func applySources(cmd *cobra.Command, configPath string) error {
	if configPath == "" {
		configPath = os.Getenv(envName("config"))
	}
	file, err := readConfig(cmd.Root(), configPath)
	if err != nil {
		return err
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if failed != nil || f.Changed || f.Name == "help" {
			return
		}
		value, from := os.Getenv(envName(f.Name)), envName(f.Name)
		if value == "" {
			kv, ok := file[f.Name]
			if !ok {
				return
			}
			value, from = kv.value, fmt.Sprintf("%s:%d: %s", configPath, kv.line, f.Name)
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			failed = configError("%s: %w", from, err)
		}
	})
	return failed
}

func envName(flag string) string {
	return "MUSTER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

type fileValue struct {
	value string
	line  int
}

// readConfig reads a YAML mapping of flag names to values. A key that is the
// flag of no verb is an error with its line; one that only another verb has is
// let be, so that one file serves them all.
func readConfig(root *cobra.Command, path string) (map[string]fileValue, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, configError("reading the configuration: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, configError("%s: %w", path, err)
	}
	values := map[string]fileValue{}
	if len(doc.Content) == 0 {
		return values, nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, configError("%s:%d: not a mapping of keys to values", path, top.Line)
	}
	known := flagNames(root)
	for n := 0; n+1 < len(top.Content); n += 2 {
		k, v := top.Content[n], top.Content[n+1]
		if !known[k.Value] {
			hint := ""
			if known[strings.ReplaceAll(k.Value, "_", "-")] {
				hint = fmt.Sprintf("; did you mean %q?", strings.ReplaceAll(k.Value, "_", "-"))
			}
			return nil, configError("%s:%d: unknown key %q%s", path, k.Line, k.Value, hint)
		}
		if _, twice := values[k.Value]; twice {
			return nil, configError("%s:%d: %q is set twice", path, k.Line, k.Value)
		}
		text, err := scalarText(v)
		if err != nil {
			return nil, configError("%s:%d: %s: %w", path, v.Line, k.Value, err)
		}
		values[k.Value] = fileValue{text, k.Line}
	}
	return values, nil
}

func scalarText(v *yaml.Node) (string, error) {
	switch v.Kind {
	case yaml.ScalarNode:
		if v.Tag == "!!null" {
			return "", nil
		}
		return v.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, len(v.Content))
		for n, c := range v.Content {
			if c.Kind != yaml.ScalarNode {
				return "", errors.New("a list holds plain values only")
			}
			parts[n] = c.Value
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("the value is neither plain nor a list")
}

// flagNames are the names of all flags of all verbs.
func flagNames(cmd *cobra.Command) map[string]bool {
	names := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		add := func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "config" {
				names[f.Name] = true
			}
		}
		c.LocalFlags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(cmd)
	return names
}

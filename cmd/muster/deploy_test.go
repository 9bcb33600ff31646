package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// checkServerLine holds the words of a command line, of which the first may be the
// program, against the flags of muster server, and returns it parsed.
func checkServerLine(t *testing.T, where string, words []string) *cobra.Command {
	t.Helper()
	cmd, rest, err := newRoot().Find(words)
	if err != nil || cmd.Name() != "server" {
		t.Fatalf("%s runs %q, which is not muster server: %v", where, words, err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if left := cmd.Flags().Args(); len(left) > 0 {
		t.Errorf("%s: muster server takes no arguments: %q", where, left)
	}
	return cmd
}

func flagOf(t *testing.T, cmd *cobra.Command, name string) string {
	t.Helper()
	f := cmd.Flags().Lookup(name)
	if f == nil {
		t.Fatalf("there is no flag --%s", name)
	}
	return f.Value.String()
}

// portsOf are the ports of the three addresses of a node, by their names here.
func portsOf(t *testing.T, cmd *cobra.Command) map[string]int {
	t.Helper()
	ports := map[string]int{}
	for _, name := range []string{"api", "peer", "gossip"} {
		_, port, err := net.SplitHostPort(flagOf(t, cmd, name+"-addr"))
		if err != nil {
			t.Fatal(err)
		}
		if ports[name], err = strconv.Atoi(port); err != nil {
			t.Fatal(err)
		}
	}
	return ports
}

// TestUnit holds the systemd unit and its configuration against the flags.
func TestUnit(t *testing.T) {
	unit := readDeploy(t, "systemd/muster.service")
	start := regexp.MustCompile(`(?m)^ExecStart=\S+/muster (.*)$`).FindStringSubmatch(unit)
	if start == nil {
		t.Fatal("the unit starts no muster")
	}
	cmd := checkServerLine(t, "ExecStart", strings.Fields(start[1]))
	if got, want := flagOf(t, cmd, "data-dir"), "/var/lib/"+regexp.MustCompile(`(?m)^StateDirectory=(.*)$`).FindStringSubmatch(unit)[1]; got != want {
		t.Errorf("the data directory is %s, and StateDirectory makes %s", got, want)
	}
	for _, line := range []string{"Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "SystemCallFilter=@system-service"} {
		if !slices.Contains(strings.Split(unit, "\n"), line) {
			t.Errorf("the unit lacks %s", line)
		}
	}
	keys, err := readConfig(newRoot(), "../../deploy/systemd/muster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	fresh, _, err := newRoot().Find([]string{"server"})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range keys {
		if fresh.Flags().Lookup(name) == nil {
			t.Errorf("muster.yaml: %s is no flag of muster server", name)
		} else if err := fresh.Flags().Set(name, v.value); err != nil {
			t.Errorf("muster.yaml: %v", err)
		}
	}
	t.Run("exposure", func(t *testing.T) {
		tool, err := exec.LookPath("systemd-analyze")
		if err != nil {
			t.Skip("systemd-analyze is not installed")
		}
		// The threshold is in tenths.
		out, err := exec.CommandContext(t.Context(), tool, "security", "--offline=yes", "--threshold=20", "--no-pager", "../../deploy/systemd/muster.service").CombinedOutput()
		if strings.Contains(string(out), "unrecognized option") {
			t.Skip("systemd-analyze is too old to look at a file")
		}
		if err != nil {
			t.Errorf("the unit is more exposed than 2.0: %v\n%s", err, tail(string(out), 5))
		}
	})
}

// TestImage holds the Dockerfile and the compose file against the flags, the ports
// and go.mod.
func TestImage(t *testing.T) {
	file := readDeploy(t, "docker/Dockerfile")
	instruction := func(name string) string {
		all := regexp.MustCompile(`(?m)^`+name+` (.*)$`).FindAllStringSubmatch(file, -1)
		if all == nil {
			t.Fatalf("the Dockerfile has no %s", name)
		}
		return all[len(all)-1][1]
	}
	var line []string
	if err := json.Unmarshal([]byte(instruction("CMD")), &line); err != nil {
		t.Fatal(err)
	}
	ports := portsOf(t, checkServerLine(t, "CMD", line))
	want := fmt.Sprintf("%d/tcp %d/tcp %[3]d/tcp %[3]d/udp", ports["api"], ports["peer"], ports["gossip"])
	if got := instruction("EXPOSE"); got != want {
		t.Errorf("the image exposes %s, a node listens on %s", got, want)
	}
	if user := instruction("USER"); strings.HasPrefix(user, "0") || strings.HasPrefix(user, "root") {
		t.Errorf("the image runs as %s", user)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))[1]; !strings.Contains(file, "FROM golang:"+version+" AS build") {
		t.Errorf("the image is not built by Go %s, as go.mod wants", version)
	}

	var compose struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
			ReadOnly    bool `yaml:"read_only"`
			Ports       []string
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal([]byte(readDeploy(t, "docker/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	if len(compose.Services) != 3 {
		t.Fatalf("there are %d services, not 3", len(compose.Services))
	}
	for name, s := range compose.Services {
		cmd := checkServerLine(t, name, s.Command)
		for key, v := range s.Environment {
			flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(key, "MUSTER_"), "_", "-"))
			if envName(flag) != key || cmd.Flags().Lookup(flag) == nil {
				t.Errorf("%s: %s is the variable of no flag", name, key)
			} else if err := cmd.Flags().Set(flag, v); err != nil {
				t.Errorf("%s: %s: %v", name, key, err)
			}
		}
		if !s.ReadOnly {
			t.Errorf("%s may write outside of its volume", name)
		}
		checkJoin(t, name, cmd, slices.Collect(maps.Keys(compose.Services)))
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") || !strings.HasSuffix(p, fmt.Sprintf(":%d", portsOf(t, cmd)["api"])) {
				t.Errorf("%s publishes %s: not on loopback, or not the API", name, p)
			}
		}
		if probe, _, err := newRoot().Find(s.Healthcheck.Test[2:]); err != nil || probe.Name() != "members" {
			t.Errorf("%s: the health check is %q: %v", name, s.Healthcheck.Test, err)
		}
	}
}

// checkJoin sees that a node joins all of the hosts at the gossip port.
func checkJoin(t *testing.T, where string, cmd *cobra.Command, hosts []string) {
	t.Helper()
	if got := flagOf(t, cmd, "bootstrap-expect"); got != strconv.Itoa(len(hosts)) {
		t.Errorf("%s: --bootstrap-expect is %s, of %d nodes", where, got, len(hosts))
	}
	join := strings.Split(strings.Trim(flagOf(t, cmd, "join"), "[]"), ",")
	for _, host := range hosts {
		if want := net.JoinHostPort(host, strconv.Itoa(portsOf(t, cmd)["gossip"])); !slices.Contains(join, want) {
			t.Errorf("%s does not join %s", where, want)
		}
	}
}

// manifest is what is looked at in a Kubernetes object.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		ServiceName         string `yaml:"serviceName"`
		Replicas            int
		PodManagementPolicy string `yaml:"podManagementPolicy"`
		ClusterIP           string `yaml:"clusterIP"`
		PublishNotReady     bool   `yaml:"publishNotReadyAddresses"`
		MaxUnavailable      int    `yaml:"maxUnavailable"`
		Selector            any
		Ports               []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Spec struct {
				GracePeriod int `yaml:"terminationGracePeriodSeconds"`
				Containers  []struct {
					Args  []string
					Ports []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					Startup   podProbe `yaml:"startupProbe"`
					Liveness  podProbe `yaml:"livenessProbe"`
					Readiness podProbe `yaml:"readinessProbe"`
					Mounts    []struct {
						Path string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
			}
		}
	}
}

type podProbe struct {
	Get struct{ Path, Port, Scheme string } `yaml:"httpGet"`
}

// TestManifests holds the Kubernetes objects against each other, the flags and the
// probes of a node that runs.
func TestManifests(t *testing.T) {
	objects := map[string]manifest{}
	decoder := yaml.NewDecoder(strings.NewReader(readDeploy(t, "kubernetes/muster.yaml")))
	for {
		var m manifest
		if err := decoder.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		objects[m.Kind+" "+m.Metadata.Name] = m
	}
	set, ok := objects["StatefulSet muster"]
	if !ok {
		t.Fatalf("there is no StatefulSet among %v", slices.Collect(maps.Keys(objects)))
	}
	headless, ok := objects["Service "+set.Spec.ServiceName]
	if !ok || headless.Spec.ClusterIP != "None" || !headless.Spec.PublishNotReady {
		t.Errorf("the service %q must be headless and name nodes that are not ready: they become so by each other", set.Spec.ServiceName)
	}
	if set.Spec.PodManagementPolicy != "Parallel" {
		t.Error("one by one, the first node would wait for ever for the others to be started")
	}
	if pdb := objects["PodDisruptionBudget muster"]; pdb.Spec.MaxUnavailable != 1 {
		t.Error("more than one node may be taken away at once")
	}
	c := set.Spec.Template.Spec.Containers[0]
	cmd := checkServerLine(t, "the container", c.Args)
	var hosts []string
	for n := range set.Spec.Replicas {
		hosts = append(hosts, fmt.Sprintf("%s-%d.%s", set.Metadata.Name, n, set.Spec.ServiceName))
	}
	checkJoin(t, "the container", cmd, hosts)
	if adv := flagOf(t, cmd, "advertise"); !strings.HasPrefix(adv, "$(POD_NAME)."+set.Spec.ServiceName+".$(POD_NAMESPACE).svc") {
		t.Errorf("a node is reached at %s", adv)
	}
	ports := portsOf(t, cmd)
	for _, p := range c.Ports {
		if want := ports[strings.TrimSuffix(p.Name, "-udp")]; p.ContainerPort != want {
			t.Errorf("the port %s of the container is %d, the node listens on %d", p.Name, p.ContainerPort, want)
		}
	}
	for name, s := range objects {
		for _, p := range s.Spec.Ports {
			if want := ports[strings.TrimSuffix(p.Name, "-udp")]; p.Port != want || p.TargetPort != p.Name {
				t.Errorf("%s: the port %s is %d to %s, the node listens on %d", name, p.Name, p.Port, p.TargetPort, want)
			}
		}
	}
	for _, name := range []string{"data-dir", "cluster-key-file", "tls-cert-file", "tls-key-file"} {
		file := flagOf(t, cmd, name)
		if !slices.ContainsFunc(c.Mounts, func(m struct {
			Path string `yaml:"mountPath"`
		}) bool {
			return strings.HasPrefix(file, m.Path+"/")
		}) {
			t.Errorf("--%s %s is on no volume", name, file)
		}
	}
	if grace := set.Spec.Template.Spec.GracePeriod; grace < 30 {
		t.Errorf("a node has %d s to stop in", grace)
	}
	node := newCluster(t, 1)[0]
	node.start()
	node.waitReady("?require=leader")
	for name, p := range map[string]struct {
		probe podProbe
		path  string
	}{"startup": {c.Startup, "/livez"}, "liveness": {c.Liveness, "/livez"}, "readiness": {c.Readiness, "/readyz"}} {
		status, text, err := request(t.Context(), http.DefaultClient, "GET", node.url+p.probe.Get.Path, "")
		if err != nil || status != http.StatusOK || p.probe.Get.Path != p.path {
			t.Errorf("the %s probe asks %s, should ask %s: %d %s %v", name, p.probe.Get.Path, p.path, status, text, err)
		}
		if p.probe.Get.Port != "api" || p.probe.Get.Scheme != "HTTPS" {
			t.Errorf("the %s probe asks port %s by %s", name, p.probe.Get.Port, p.probe.Get.Scheme)
		}
	}
}

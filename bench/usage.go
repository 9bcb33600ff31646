package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Usage is what processes have used.
type Usage struct {
	CPU      float64 // seconds of processor time, all processes together
	Resident float64 // bytes of the process that has most
}

// usage tells what processes have used so far.
type usage interface {
	usage(ctx context.Context) (Usage, error)
}

// meter reads the processes' own account, at /metrics.
type meter struct {
	client *http.Client
	urls   []string
}

func (m meter) usage(ctx context.Context) (Usage, error) {
	var all Usage
	for _, url := range m.urls {
		one, err := usageOf(ctx, m.client, url)
		if err != nil {
			return all, err
		}
		all.CPU += one.CPU
		all.Resident = max(all.Resident, one.Resident)
	}
	return all, nil
}

// usageOf reads the account of one process.
func usageOf(ctx context.Context, client *http.Client, url string) (Usage, error) {
	text, err := send(ctx, client, "GET", url+"/metrics", "", 200)
	if err != nil {
		return Usage{}, fmt.Errorf("reading the metrics: %w", err)
	}
	var u Usage
	if u.CPU, err = metric(text, "process_cpu_seconds_total"); err != nil {
		return u, err
	}
	u.Resident, err = metric(text, "process_resident_memory_bytes")
	return u, err
}

// metric finds a metric without labels in the text of a scrape.
func metric(text, name string) (float64, error) {
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				return 0, fmt.Errorf("reading %s: %w", name, err)
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("the process does not report %s (it does on Linux)", name)
}

package httpapi

import (
	"net/http"

	"github.com/muster-registry/muster"
	"github.com/muster-registry/muster/problem"
)

// batchRequest is the body of POST /v1/batch/register.
type batchRequest struct {
	Instances []*muster.Instance `json:"instances"`
}

// batchAnswer is what it answers.
type batchAnswer struct {
	// Index is the index of the last log entry that holds a part of the batch.
	Index      uint64        `json:"index"`
	Registered int           `json:"registered"`
	Refused    int           `json:"refused"`
	Results    []batchResult `json:"results"`
}

// batchResult is what became of one instance, in the order of the request.
type batchResult struct {
	Namespace string           `json:"namespace"`
	Service   string           `json:"service"`
	ID        string           `json:"id"`
	Index     uint64           `json:"index,omitempty"`
	Created   bool             `json:"created"`
	Changed   bool             `json:"changed"`
	LeaseID   muster.LeaseID   `json:"lease_id,omitzero"`
	Error     *problem.Problem `json:"error,omitempty"`
}

// registerBatch answers POST /v1/batch/register. A body that cannot be read is
// refused as a whole; an instance that the registry refuses, on its own.
func (s *Server) registerBatch(c *call) error {
	var req batchRequest
	if err := c.decode(&req, muster.MaxBatchBytes); err != nil {
		return err
	}
	if len(req.Instances) > muster.MaxBatchItems {
		return muster.Errorf(muster.CodeBodyTooLarge, "the batch holds %d instances, more than %d", len(req.Instances), muster.MaxBatchItems)
	}
	who, err := c.caller()
	if err != nil {
		return err
	}
	ctx, cancel, err := c.writeContext()
	if err != nil {
		return err
	}
	defer cancel()
	items, err := s.registry.RegisterBatch(ctx, who, req.Instances)
	if err != nil {
		return err
	}
	a := batchAnswer{Results: make([]batchResult, 0, len(items))}
	for _, item := range items {
		r := batchResult{
			Namespace: item.Key.Namespace, Service: item.Key.Service, ID: item.Key.ID,
			Index: item.Index, Created: item.Created, Changed: item.Changed,
		}
		if item.Err != nil {
			r.Error = problem.New(c.coded(item.Err), "", "")
			a.Refused++
		} else {
			a.Registered++
		}
		if item.Instance != nil {
			r.LeaseID = item.Instance.LeaseID
		}
		a.Index = max(a.Index, item.Index)
		a.Results = append(a.Results, r)
	}
	c.setIndex(a.Index)
	return c.json(http.StatusOK, a)
}

package httpapi

import (
	"encoding/json"
	"sync"

	"github.com/muster-registry/muster"
)

// instanceTexts are the JSON of instances of one view, each made when it is first
// asked for and shared by all picks. nil keeps nothing.
type instanceTexts struct {
	made sync.Map // *muster.Instance -> []byte
}

// textsOf returns the texts kept with a view. Those of a filtered view are not
// kept: it would be once more for every filter.
func textsOf(v *muster.View) *instanceTexts {
	if v.Partial() {
		return nil
	}
	return v.Derive("httpapi.instances", newTexts).(*instanceTexts)
}

func newTexts(*muster.View) any { return &instanceTexts{} }

// of returns the JSON of i, which is not to be changed.
func (t *instanceTexts) of(i *muster.Instance) []byte {
	if t != nil {
		if b, ok := t.made.Load(i); ok {
			return b.([]byte)
		}
	}
	b, err := json.Marshal(i)
	if err != nil { // only strings, numbers and times: cannot happen
		panic("httpapi: encoding an instance: " + err.Error())
	}
	if t != nil {
		t.made.Store(i, b)
	}
	return b
}

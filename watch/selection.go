package watch

import (
	"slices"
	"strings"

	"github.com/muster-registry/muster"
)

// selection is what a stream carries, in canonical form.
type selection struct {
	group    groupKey // of which only the namespace counts where services are named
	services []string // sorted; nil: by prefix
}

func (s *selection) match(k muster.ServiceKey) bool {
	if s.services == nil {
		return s.group.match(k)
	}
	if k.Namespace != s.group.namespace {
		return false
	}
	_, ok := slices.BinarySearch(s.services, k.Service)
	return ok
}

// choose checks and folds the names of a Spec.
func choose(spec Spec) (selection, error) {
	var sel selection
	var err error
	if sel.group.namespace, err = muster.CleanNamespace(spec.Namespace); err != nil {
		return sel, err
	}
	if len(spec.Services) > 0 {
		if spec.Prefix != "" {
			return sel, muster.Errorf(muster.CodeConflictingField, "a watch names services or a prefix, not both").
				WithHint("leave out service= or prefix=")
		}
		for _, name := range spec.Services {
			clean, err := muster.CleanService(name)
			if err != nil {
				return sel, err
			}
			sel.services = append(sel.services, clean)
		}
		slices.Sort(sel.services)
		sel.services = slices.Compact(sel.services)
		return sel, nil
	}
	sel.group.prefix, err = cleanPrefix(spec.Prefix)
	return sel, err
}

// cleanPrefix folds and checks the beginning of a service's name: it has to be
// that of some name, or nothing could ever match it.
func cleanPrefix(prefix string) (string, error) {
	if prefix == "" {
		return "", nil
	}
	name := prefix
	if len(name) < muster.MaxNameLen {
		name += "0" // a prefix may end where a name may not
	}
	if _, err := muster.CleanService(name); err != nil {
		return "", muster.Errorf(muster.CodeInvalidName, "no service can have a name that starts with the prefix given").
			WithHint("use up to 128 of A-Z a-z 0-9 . _ - that start with a letter or a digit")
	}
	return strings.ToLower(prefix), nil
}

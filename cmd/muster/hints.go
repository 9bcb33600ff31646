package main

import (
	"strings"

	"github.com/muster-registry/muster"
)

// hintFor is what people who sit at this command may do about an error, in its own
// terms: a node's hint speaks of requests.
func hintFor(e *muster.Error) string {
	switch e.Code {
	case muster.CodeUnknownService:
		return `"muster services" lists what is there; "muster wait SERVICE" waits until it is`
	case muster.CodeUnknownInstance:
		return `"muster instances SERVICE" lists those that are there, "muster events SERVICE ID" what became of one`
	case muster.CodeUnknownMember:
		return `"muster members" lists them with their ids`
	case muster.CodeNotFound:
		return `the node may be of another version than this command: compare "muster members" and "muster version"`
	case muster.CodeInvalidStrategy:
		if strings.Contains(e.Hint, "key=") {
			return "give --key, with what the choice is to stick to, such as a user or a session"
		}
	}
	return e.Hint
}

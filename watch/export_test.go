package watch

// Sizes is how many topics and groups the Hub keeps: those that are not let go of
// would be a leak that nothing else shows.
func (h *Hub) Sizes() (topics, groups int) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.topics), len(h.groups.byKey)
}

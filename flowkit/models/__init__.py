"""Models: what sends a request and gives its answer as deltas."""

"""Models: send a request and stream its answer as deltas."""

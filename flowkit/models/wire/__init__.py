"""The wire: from a request to bytes, and from a server's bytes to deltas."""

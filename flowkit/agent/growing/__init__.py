"""Answers that are JSON, as far as they have come: never a value that the whole answer won't have."""

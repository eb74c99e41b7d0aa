"""A shop's customer service."""

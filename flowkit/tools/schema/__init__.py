"""From a signature to a JSON schema, and from a model's arguments to values."""

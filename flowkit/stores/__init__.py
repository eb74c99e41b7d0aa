"""What the cache and the journal share: a thread that writes, and folders that nobody else may touch."""

"""Shared by the cache and the journal: a writing thread, and private folders."""

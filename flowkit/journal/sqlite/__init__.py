"""A journal in one SQLite file, with a folder of large results beside it: for the processes of one machine."""

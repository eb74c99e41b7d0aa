"""The exit codes of commands; 0 is done."""

FAILED = 1
"""The run failed, reached a limit, or waits for a person."""
MISUSED = 2
"""Wrong usage or configuration."""
STOPPED = 130
"""Stopped by Ctrl-C."""

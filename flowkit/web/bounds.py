"""Limits per user, and time limits for clients."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of `serve_app`; times in seconds.

    `streams` and `runs` limit each user's open streams and live runs. `body_bytes` and
    `head_bytes` limit the size of a request, `body_s` the time its body takes. A run of `/api/chat` that has had no
    viewer for `unwatched_s` is cancelled. `grace_s` is the time that runs have to finish when the server stops.
    """

    streams: int = 4
    runs: int = 8
    body_bytes: int = 2**20
    head_bytes: int = 2**16
    body_s: float = 10.0
    unwatched_s: float = 2.0
    grace_s: float = 1.0
    keep_alive_s: float = 15.0
    poll_s: float = 0.25

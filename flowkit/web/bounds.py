"""What a server grants one user, and how long it waits for a client."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of `serve_app`; times in seconds.

    `streams` and `runs` are how many one user may have open, and live, at the same time. `body_bytes` and
    `head_bytes` bound a request, `body_s` how long its body may take. `unwatched_s` is after what time a run of
    `/api/chat` that nobody watches is cancelled. `grace_s` is how long runs may go on when the server ends.
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

"""Runs in the journal as something else: a test that replays one, a case to measure models by."""

from flowkit.exports.recorded_run import RecordedRun, read_run
from flowkit.exports.replaying import Replay, replay_run

__all__ = ["RecordedRun", "Replay", "read_run", "replay_run"]

"""Runs that are driven elsewhere than where they are asked for: by workers, and by whatever queue hands them out.

A queue may lose a run, deliver it twice, or late: the journal decides who drives it, and `stopped` finds what nobody
does. So a queue needs nothing but a call of `drive`.
"""

from flowkit.queues.driver import Driver, DriveStatus, drive, submit
from flowkit.queues.worker import QueueWorker
from flowkit.runs.queue import JournalQueue, RunQueue

__all__ = ["DriveStatus", "Driver", "JournalQueue", "QueueWorker", "RunQueue", "drive", "submit"]

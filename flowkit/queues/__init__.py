"""Runs that are submitted by one process and driven by another: a worker, or the handler of any queue.

A queue may lose a run, or deliver it twice or late: the journal decides who drives it, and `stopped` lists the runs
without a driver. So a queue only has to call `drive`.
"""

from flowkit.queues.driver import Driver, DriveStatus, drive, submit
from flowkit.queues.worker import QueueWorker
from flowkit.runs.queue import JournalQueue, RunQueue

__all__ = ["DriveStatus", "Driver", "JournalQueue", "QueueWorker", "RunQueue", "drive", "submit"]

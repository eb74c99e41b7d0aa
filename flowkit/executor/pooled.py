"""Calls of tools with `pool="process"` or `pool="dask"`: one attempt, from the pool's queue to its end.

The timeout starts when the function starts, as for a call in this process: waiting for a free process and importing a
module there don't count. A stopped call is awaited until no part of it runs any more, so that a second attempt never
overlaps the first.
"""

import asyncio
import logging
from functools import cache, partial
from secrets import token_hex
from typing import Protocol

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.executor.plan import AnyTool
from flowkit.executor.threads import count
from flowkit.executor.worker import Job
from flowkit.pools.calls import CallRefused, Gone, make_call
from flowkit.pools.jobs import PoolJob
from flowkit.tools.options import PoolName

logger = logging.getLogger("flowkit.executor")

FREE_WITHIN_S = 5.0
"""How long a stopped call may take to disappear; a killed process disappears immediately."""


class TooSlow(Exception):
    """A call took longer than its time-out, and is gone."""


class Pool(Protocol):
    """Somewhere to run calls that travel as JSON."""

    def submit(self, job: PoolJob) -> None:
        """Queue a job without waiting."""
        ...


async def prepare(tool: AnyTool, name: PoolName) -> Pool:
    """Return the pool that can run calls of this tool now; raises `CallRefused`, before anything has begun."""
    # Where they are first used: most programs have no tool with a pool.
    from flowkit.pools.opened_pools import open_cluster, open_processes

    try:
        if name == "process":
            return open_processes()
        cluster = open_cluster()
        await cluster.prepare(tool)
    except ConfigurationError as error:
        raise CallRefused(str(error)) from error
    except Gone as gone:
        _tell_fallback(str(gone))
        return open_processes()
    return cluster


class Pooled:
    """One attempt of a call in a pool."""

    def __init__(self, job: Job, name: PoolName, key: str) -> None:
        self._job = job
        self._name: PoolName = name
        # A run with the same id in another process or of another user must not get this result.
        self._key = f"{key}:{token_hex(8)}"
        self._pooled: PoolJob | None = None

    @property
    def has_begun(self) -> bool:
        """Return whether its function has started; certain once `run` has returned."""
        return self._pooled is not None and self._pooled.has_begun

    async def run(self, timeout_s: float | None) -> JSON:
        """Return the function's result as JSON; raises its exception, `PoolFailure` and `TooSlow`."""
        pool = await prepare(self._job.tool, self._name)
        job = self._pooled = self._submit(pool, has_timeout=timeout_s is not None)
        limit: asyncio.Timeout | None = None
        try:
            await job.begun
            async with asyncio.timeout(timeout_s) as limit:
                return await job.result
        except TimeoutError:
            if limit is not None and limit.expired():
                await _end(job)
                raise TooSlow from None
            raise
        except asyncio.CancelledError:
            await _end(job)
            raise

    def _submit(self, pool: Pool, *, has_timeout: bool) -> PoolJob:
        tool, claim = self._job.tool, self._job.claim
        job = PoolJob(
            tool,
            make_call(tool, self._job.arguments),
            key=self._key,
            has_timeout=has_timeout,
            check=None if claim is None else claim.check,
            over=partial(count, -1),
        )
        # A virtual loop waits for outside events while this isn't 0.
        count(+1)
        pool.submit(job)
        return job


async def _end(job: PoolJob) -> None:
    if not job.is_busy:
        return
    gone = asyncio.Event()
    job.on_free.append(gone.set)
    job.stop()
    try:
        async with asyncio.timeout(FREE_WITHIN_S):
            await gone.wait()
    except TimeoutError:
        logger.warning("a call of %r was stopped and is still running", job.tool.name, extra={"tool": job.tool.name})


@cache
def _tell_fallback(why: str) -> None:
    logger.warning("%s: its calls run in processes of this machine", why)

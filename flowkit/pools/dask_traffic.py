"""What goes to a Dask scheduler and comes from it, by the batch: what is ready in one round of the loop goes together.

A graph of one task for each call, and a question for each result, cost the scheduler about as much as it takes to run
a small task.
"""

import asyncio
from typing import Any, cast

from flowkit.pools.jobs import PoolJob

Waiting = tuple[Any, "asyncio.Future[Any]"]


class Traffic:
    """Sends calls and fetches results for one client; belongs to the loop of its pool."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._outbox: list[tuple[Any, PoolJob, asyncio.Future[Any]]] = []
        self._inbox: list[Waiting] = []
        self._fetching: asyncio.Task[None] | None = None
        self.in_flight = 0
        """How many calls have been sent, and not given up or fetched."""

    async def send(self, client: Any, message: Any, job: PoolJob) -> Any:
        """Return the Dask future of a call."""
        loop = asyncio.get_running_loop()
        if not self._outbox:
            loop.call_soon(self._flush, client)
        sent: asyncio.Future[Any] = loop.create_future()
        self._outbox.append((message, job, sent))
        future = await sent
        self.in_flight += 1
        return future

    def release(self, future: Any) -> None:
        """Let the cluster forget a result."""
        self.in_flight -= 1
        future.release()

    def _flush(self, client: Any) -> None:
        from flowkit.pools.dask_worker import run_call

        outbox, self._outbox = [entry for entry in self._outbox if not entry[2].done()], []
        if not outbox:
            return
        # The tool's name stands first: Dask learns from it how long such a task takes.
        keys = [(job.tool.name, job.key) for _, job, _ in outbox]
        messages = [message for message, _, _ in outbox]
        # Only a time-out needs to know when the function starts: one argument less for all others.
        starts = [(self._topic, job.key) if job.has_timeout else None for _, job, _ in outbox]
        try:
            futures = cast(list[Any], client.map(run_call, messages, starts, key=keys, pure=False, retries=0))
        except Exception as error:  # noqa: BLE001  # such as a client that was closed meanwhile
            for _, _, sent in outbox:
                sent.set_exception(error)
            return
        for future, (_, _, sent) in zip(futures, outbox, strict=True):
            sent.set_result(future)

    async def fetch(self, client: Any, future: Any, *, is_direct: bool) -> bytes:
        """Wait for a result, and return it; raises Dask's errors."""
        import distributed

        with client.as_current():
            waited = cast(Any, distributed).wait(future)
        await waited
        if future.status != "finished":
            return cast(bytes, await future)  # which raises
        loop = asyncio.get_running_loop()
        fetched: asyncio.Future[Any] = loop.create_future()
        self._inbox.append((future, fetched))
        if self._fetching is None:
            self._fetching = loop.create_task(self._fetch_all(client, is_direct=is_direct))
        return cast(bytes, await fetched)

    async def _fetch_all(self, client: Any, *, is_direct: bool) -> None:
        try:
            while self._inbox:
                inbox, self._inbox = [entry for entry in self._inbox if not entry[1].done()], []
                try:
                    results = await client.gather([future for future, _ in inbox], direct=is_direct)
                except (Exception, asyncio.CancelledError):  # noqa: BLE001  # one of them is lost: each by itself
                    results = await asyncio.gather(
                        *(client.gather(future, direct=is_direct) for future, _ in inbox), return_exceptions=True
                    )
                for (_, fetched), result in zip(inbox, cast(list[Any], results), strict=True):
                    _settle(fetched, result)
        finally:
            self._fetching = None


def _settle(fetched: "asyncio.Future[Any]", result: object) -> None:
    if fetched.done():
        return
    if isinstance(result, asyncio.CancelledError):
        fetched.cancel()
    elif isinstance(result, BaseException):
        fetched.set_exception(result)
    else:
        fetched.set_result(result)

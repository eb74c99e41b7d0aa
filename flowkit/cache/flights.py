"""Identical work in flight runs once: the first caller leads, the others wait for its result.

The work stays in the leader's own task, with its context, its timeout and its run's data. So if the leader is
cancelled, its work ends, and the first waiter leads with its own work. No waiter is cancelled with the leader, and no
work outlives its run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Flights:
    """The flights of one process, by key; each event loop has its own."""

    def __init__(self) -> None:
        self._landing: dict[tuple[int, str], asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        return len(self._landing)

    async def share(
        self, key: str, run: Callable[[], Awaitable[T]], *, joined: Callable[[], None] | None = None
    ) -> tuple[T, bool]:
        """Return the result of `run`, ours or that of an equal call in flight; True when we led.

        An error of the leader reaches all waiters; its cancellation reaches none of them. `joined` is called each time
        before we wait for another's flight.
        """
        loop = asyncio.get_running_loop()
        flight = (id(loop), key)
        while (landing := self._landing.get(flight)) is not None:
            if joined is not None:
                joined()
            # The future is shared: a waiter that is cancelled must not cancel it for the others.
            await asyncio.wait((landing,))
            if not landing.cancelled():
                return cast(T, landing.result()), False
        landing = loop.create_future()
        self._landing[flight] = landing
        try:
            result = await run()
        except asyncio.CancelledError:
            landing.cancel()
            raise
        except BaseException as error:  # every exception of the computation is raised in its followers, too
            landing.set_exception(error)
            landing.exception()  # read once, so that an error without a follower isn't logged as lost
            raise
        else:
            landing.set_result(result)
            return result, True
        finally:
            del self._landing[flight]

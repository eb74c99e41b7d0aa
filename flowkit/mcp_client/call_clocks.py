"""Time limits on calls that pause while the server asks a person.

A call's time limit measures the server. A person who takes an hour to answer would use it up, and a write whose answer
came after all would be in doubt.

Logins that ask a person: meanwhile the time limits on connecting and on calls are paused.

The `mcp` package pauses its own clocks in this way; with flowkit's, a person would have 30 seconds to find a password.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

LOGIN_S = 3600.0
"""How long a person may take to log in; a login that never ends must not hold a run for ever."""


@contextmanager
def stand_still() -> Generator[None]:
    """Pause the clock of the current connection or call, at most for `LOGIN_S`."""
    clock = _own.get()
    if clock is None:
        yield
        return
    clock.pause(LOGIN_S)
    try:
        yield
    finally:
        clock.resume()


class CallClocks:
    """The clocks of the calls that one connection has in flight."""

    def __init__(self) -> None:
        self._running: set[_CallClock] = set()

    @asynccontextmanager
    async def limit(self, seconds: float) -> "AsyncGenerator[_CallClock]":
        """Bound a call, or until `stop`; raises `TimeoutError` once its clock ran for so many seconds."""
        async with asyncio.timeout(seconds) as timeout:
            clock = _CallClock(timeout)
            self._running.add(clock)
            token = _own.set(clock)
            try:
                yield clock
            finally:
                _own.reset(token)
                self._running.discard(clock)

    @contextmanager
    def stand_still(self) -> Generator[None]:
        """Pause the clock of the call that asks a person, until the answer.

        A question over stdio doesn't name its call, so all calls in flight are paused.
        """
        own = _own.get()
        # What a server asks by itself is heard by a task that connecting began.
        clocks = [own] if own in self._running and not own.is_stopped else [*self._running]
        for clock in clocks:
            clock.pause()
        try:
            yield
        finally:
            for clock in clocks:
                clock.resume()


class _CallClock:
    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._questions = 0
        self._left_s = 0.0
        self.is_stopped = False

    def pause(self, at_most_s: float | None = None) -> None:
        self._questions += 1
        when = self._timeout.when()
        if self._questions == 1 and when is not None:
            now = asyncio.get_running_loop().time()
            self._left_s = when - now
            self._move(None if at_most_s is None else now + at_most_s)

    def resume(self) -> None:
        self._questions -= 1
        if not self._questions:
            self._move(asyncio.get_running_loop().time() + self._left_s)

    def stop(self) -> None:
        """Bound nothing any more."""
        self._move(None)
        self.is_stopped = True

    def _move(self, when: float | None) -> None:
        if self.is_stopped:
            return
        with suppress(RuntimeError):  # the call is over: stopped by its caller, or answered with a question still open
            self._timeout.reschedule(when)


_own: ContextVar[_CallClock | None] = ContextVar("clock of the call that this code serves", default=None)


def make_patient(auth: Any) -> Any:
    """Wrap an `httpx2.Auth` so that time spent in its own code, between its requests, doesn't count.

    Other values that `httpx2` accepts, such as a pair of user and password, are returned unchanged.
    """
    from httpx2 import Auth

    if not isinstance(auth, Auth):
        return auth
    inner: Any = auth

    class PatientAuth(Auth):
        requires_request_body = inner.requires_request_body
        requires_response_body = inner.requires_response_body

        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            return inner.sync_auth_flow(request)

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            flow = inner.async_auth_flow(request)
            response: Any = None
            try:
                while True:
                    with stand_still():
                        try:
                            request = await flow.asend(response)
                        except StopAsyncIteration:
                            return
                    response = yield request
            finally:
                await flow.aclose()

    return PatientAuth()

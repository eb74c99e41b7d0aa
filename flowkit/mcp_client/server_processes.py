"""An MCP server process over stdio, as the two streams that `mcp.Client` takes.

The package's own transport hands each message from task to task, twice; that is a third of what a call costs. Here a
message is written in the task that sends it, and a line is parsed by the task that reads it. Nothing else is changed:
the messages are the package's, and leaving is as the specification says, first by a closed standard input.
"""

import asyncio
import json
import os
import re
import signal
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self, cast

from flowkit.codec import dumps
from flowkit.mcp_client.failures import INTERNAL_ERROR, UNREADABLE

MESSAGE_BYTES_AT_MOST = 10 * 1024 * 1024
"""How large one message may be, such as the result of a call."""
UNREAD_BYTES_AT_MOST = 1024 * 1024
"""After so much that nobody has read, the process is left waiting."""
GRACE_S = 2.0
"""How long a process has to end after its standard input is closed, and again after SIGTERM."""
POLL_S = 0.01
LINES_AT_MOST = 64
"""With more lines unread than this, news that only informs is thinned out: some servers report each byte."""
NOISE = "a server wrote a line to its standard output that is no message of the protocol"

Report = Callable[[str], None]
"""Takes one sentence for the operator."""


@asynccontextmanager
async def open_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stderr: IO[str],
    write_s: float,
    report: Report,
) -> "AsyncGenerator[tuple[ProcessReader, ProcessWriter]]":
    """Start a process in its own session, yield its streams, and terminate it with all its children.

    Raises `TimeoutError` if the process doesn't read a message within `write_s`.
    """
    from anyio import CancelScope

    loop = asyncio.get_running_loop()
    transport, pipes = await loop.subprocess_exec(
        lambda: ProcessPipes(report, write_s), *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
        env=dict(env), cwd=cwd, start_new_session=True,
    )  # fmt: skip
    try:
        yield ProcessReader(pipes), ProcessWriter(pipes)
    finally:
        with CancelScope(shield=True):
            await pipes.end()
        transport.close()


class ProcessPipes(asyncio.SubprocessProtocol):
    """A process's pipes: its output lines, and whether it reads its input."""

    def __init__(self, report: Report, write_s: float) -> None:
        self._report = report
        self._write_s = write_s
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._unread = 0
        self._begun: list[bytes] = []
        """The pieces of a line whose end hasn't come."""
        self._begun_bytes = 0
        self._is_ended = False
        self._reader: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._is_broken = False
        self._exited = asyncio.Event()
        self._process: Any = None
        self._stdin: Any = None
        self._stdout: Any = None

    # What the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process = cast(asyncio.SubprocessTransport, transport)
        self._stdin, self._stdout = self._process.get_pipe_transport(0), self._process.get_pipe_transport(1)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self._is_ended:
            return
        first, *others = data.split(b"\n")
        self._begun.append(first)
        self._begun_bytes += len(first)
        if others:
            self._lines.append(b"".join(self._begun))
            self._lines.extend(others[:-1])
            self._begun, self._begun_bytes = [others[-1]], len(others[-1])
            self._unread += len(data)
            if self._unread > UNREAD_BYTES_AT_MOST:
                self._stdout.pause_reading()
            self._wake()
        if self._begun_bytes > MESSAGE_BYTES_AT_MOST:
            self._report(f"its message is larger than {MESSAGE_BYTES_AT_MOST} bytes: the connection is closed")
            self.stop_reading()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._is_broken = True
            self._room.set()
            # What it has written may still be on its way; what it hears no more isn't answered.
            self._loop.call_later(GRACE_S, self.stop_reading)
        else:
            self._is_ended = True
            self._wake()

    def process_exited(self) -> None:
        self._exited.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    # What the streams ask

    async def read_line(self) -> bytes | None:
        """Read the next line; None after the last."""
        while not self._lines:
            if self._is_ended:
                return None
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        line = self._lines.popleft()
        if not self._lines and self._unread:
            if self._unread > UNREAD_BYTES_AT_MOST and not self._stdout.is_closing():
                self._stdout.resume_reading()
            self._unread = 0
        return line

    async def write(self, data: bytes) -> None:
        """Write a message, once there is room for it; raises `TimeoutError` when there is none for too long."""
        if not self._room.is_set():
            async with asyncio.timeout(self._write_s):
                await self._room.wait()
        if self._is_broken or self._stdin.is_closing():
            from anyio import BrokenResourceError

            raise BrokenResourceError
        self._stdin.write(data)

    @property
    def is_behind(self) -> bool:
        """Return whether the process writes faster than its lines are read."""
        return len(self._lines) > LINES_AT_MOST

    def stop_reading(self) -> None:
        """Drop unread and future output, so a full pipe doesn't block the process."""
        self._is_ended = True
        self._lines.clear()
        self._begun.clear()
        if self._unread > UNREAD_BYTES_AT_MOST and not self._stdout.is_closing():
            self._stdout.resume_reading()
        self._unread = 0
        self._wake()

    def report_noise(self) -> None:
        """Report a line that is no message."""
        self._report(NOISE)

    async def end(self) -> None:
        """Terminate the process and its children: close its input, then SIGTERM, then SIGKILL."""
        self.stop_reading()
        self._stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._is_gone(GRACE_S):
                return
            self._signal(number)
        await self._is_gone(GRACE_S)

    async def _is_gone(self, within_s: float) -> bool:
        """Wait until the process and its group have exited: a wrapper may exit before its server."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._exited.wait()
                while self._signal(0):  # noqa: ASYNC110  # nothing tells when the last process of a group has ended
                    await asyncio.sleep(POLL_S)
                return True
        return False

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; False where there is none any more."""
        try:
            os.killpg(self._process.get_pid(), number)
        except (ProcessLookupError, PermissionError):  # macOS refuses where only ended processes are left
            return False
        return True

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class ProcessReader:
    """The messages that a process writes, as a read stream of the `mcp` package; lines that are none are skipped."""

    def __init__(self, pipes: ProcessPipes) -> None:
        from mcp.shared.message import SessionMessage
        from mcp_types import jsonrpc_message_adapter

        self._pipes = pipes
        self._wrap = SessionMessage
        self._parse = jsonrpc_message_adapter.validate_json

    async def receive(self) -> Any:
        from anyio import EndOfStream

        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise EndOfStream from None

    async def aclose(self) -> None:
        self._pipes.stop_reading()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while (line := await self._pipes.read_line()) is not None:
            if not line.strip() or (self._pipes.is_behind and _only_informs(line)):
                continue
            try:
                return self._wrap(self._parse(line, by_name=False))
            except ValueError:
                self._pipes.report_noise()
            answer = _answer_instead(line)
            if answer is not None:
                return self._wrap(self._parse(answer, by_name=False))
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class ProcessWriter:
    """A process's input as a write stream of the `mcp` package; closed when the process is terminated."""

    def __init__(self, pipes: ProcessPipes) -> None:
        self._pipes = pipes

    async def send(self, message: Any, /) -> None:
        text: str = message.message.model_dump_json(by_alias=True, exclude_unset=True)
        await self._pipes.write(text.encode() + b"\n")

    async def aclose(self) -> None:
        """Do nothing: the last messages are still on their way."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _only_informs(line: bytes) -> bool:
    """Return True for notifications that are superseded by later ones or have no listener here."""
    if not any(method in line for method in _NEWS):
        return False
    message = _read_object(line)
    return "id" not in message and str(message.get("method")).encode() in _NEWS


def _answer_instead(line: bytes) -> bytes | None:
    """Make an answer of one that the package can't read, so that its call doesn't wait for another until its time-out.

    >>> _answer_instead(b'{"id": 1, "result": null}')
    b'{"jsonrpc":"2.0","id":1,"error":{"code":-32098,"message":"no result of the protocol"}}'
    """
    message = _read_object(line)
    number = message.get("id")
    if not isinstance(number, int | str) or isinstance(number, bool) or "method" in message:
        return None
    if "result" in message:
        error = {"code": UNREADABLE, "message": "no result of the protocol"}
    elif "error" in message:
        error = {"code": INTERNAL_ERROR, "message": f"an error that can't be read: {str(message['error'])[:300]!a}"}
    else:
        return None
    return dumps({"jsonrpc": "2.0", "id": number, "error": error})


def _read_object(line: bytes) -> dict[str, Any]:
    try:
        message: object = json.loads(line)  # which takes what strict readers refuse, such as half a surrogate pair
    except RecursionError:
        found = _NUMBER.match(line)
        return {} if found is None else {"id": int(found[1]), "result": None}
    except ValueError:
        return {}
    return cast(dict[str, Any], message) if isinstance(message, dict) else {}


_NUMBER = re.compile(rb'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)\s*,\s*"result"')
"""How an answer begins that lies too deep to be read."""
_NEWS = (b"notifications/progress", b"notifications/message")

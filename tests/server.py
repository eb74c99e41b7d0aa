"""A scripted OpenAI-compatible HTTP server in a process of its own, for everything about timing, bytes and errors.

    with ScriptedServer([chat(0.2, "Hello", 0.05, " there"), error(429, "slow down", retry_after=1)]) as server:
        model = OpenAIModel("any", base_url=server.base_url, api_key="any")
        ...
        server.requests[0].body["messages"]

Each request takes the next reply; a dict of lists gives each model its own, `cycle=True` starts over at the end. A
reply is made by `chat`, `responses`, `replay`, `error` or `page`. In their pieces a number is a pause in seconds, and
`CUT` closes the connection in the middle. A request says when each piece went out, by the clock of
`time.monotonic()`, which the processes of one machine share.

All servers of a process share a second one, which runs this very file with the standard library alone: to start Python
for each took most of the time of a test.
"""

import asyncio
import atexit
import base64
import json
import math
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

Outcome = Literal["open", "served", "cut", "left"]


@dataclass(frozen=True)
class Reply:
    """What goes over the wire: a pause in seconds (`inf`: until `go_on`), bytes, or None, which cuts the connection."""

    pieces: tuple[float | bytes | None, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})


@dataclass(frozen=True)
class SentRequest:
    """A request as the server saw it; times are `time.monotonic()`.

    `outcome` is "served" to the end, "cut" by the script, or "left" when the client closed the connection before.
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    sent_at: tuple[float, ...]
    outcome: Outcome
    connection: int


@dataclass(frozen=True)
class Cut:
    """Closes the connection here."""


@dataclass(frozen=True)
class ToolCall:
    """A call in a script; its arguments go out in `pieces` deltas with `pause` seconds before each."""

    name: str
    arguments: str
    id: str = ""
    pieces: int = 1
    pause: float = 0.0


@dataclass(frozen=True)
class Thinking:
    """Thinking in a script."""

    text: str


CUT = Cut()
Piece = str | float | bytes | Cut | ToolCall | Thinking


def call(name: str, /, *, id: str = "", pieces: int = 1, pause: float = 0.0, **arguments: object) -> ToolCall:
    """A call with these arguments."""
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False), id, pieces, pause)


def chat(
    *pieces: Piece, finish: str | None = None, usage: tuple[int, int] | None = (10, 5), done: bool = True
) -> Reply:
    """A Chat Completions stream; the finish reason is worked out unless it is given, `finish=""` leaves it out."""
    out: list[float | bytes | None] = []
    calls = 0
    for piece in pieces:
        match piece:
            case str():
                out.append(_chunk({"content": piece}))
            case Thinking():
                out.append(_chunk({"reasoning_content": piece.text}))
            case ToolCall():
                head = {"index": calls, "id": piece.id or f"call_{calls}", "type": "function"}
                out.append(_chunk({"tool_calls": [{**head, "function": {"name": piece.name, "arguments": ""}}]}))
                for fragment in _cut(piece.arguments, piece.pieces):
                    out.extend([piece.pause] if piece.pause else [])
                    out.append(_chunk({"tool_calls": [{"index": calls, "function": {"arguments": fragment}}]}))
                calls += 1
            case Cut():
                return Reply((*out, None))
            case _:
                out.append(piece)
    if finish != "":
        out.append(_chunk({}, finish or ("tool_calls" if calls else "stop")))
    if usage is not None:
        tokens = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        out.append(_event({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": tokens}))
    if done:
        out.append(b"data: [DONE]\n\n")
    return Reply(tuple(out))


def responses(*pieces: Piece, usage: tuple[int, int] = (10, 5)) -> Reply:
    """A stream of the Responses API."""
    out: list[float | bytes | None] = [_named({"type": "response.created", "response": {"id": "r1"}})]
    position = 0
    for piece in pieces:
        place: dict[str, object] = {"output_index": position, "item_id": f"item_{position}"}
        match piece:
            case str():
                item: dict[str, object] = {"type": "message", "id": f"item_{position}", "role": "assistant"}
                item["content"] = []
                out.append(_named({"type": "response.output_item.added", "output_index": position, "item": item}))
                out.append(_named({"type": "response.output_text.delta", **place, "content_index": 0, "delta": piece}))
                out.append(_named({"type": "response.output_item.done", "output_index": position, "item": item}))
                position += 1
            case Thinking():
                summary = {"type": "summary_text", "text": piece.text}
                item = {"type": "reasoning", "id": f"rs_{position}", "summary": [summary], "encrypted_content": "e"}
                out.append(_named({"type": "response.output_item.added", "output_index": position, "item": item}))
                delta = {"type": "response.reasoning_summary_text.delta", **place, "summary_index": 0}
                out.append(_named({**delta, "delta": piece.text}))
                out.append(_named({"type": "response.output_item.done", "output_index": position, "item": item}))
                position += 1
            case ToolCall():
                item = {"type": "function_call", "id": f"item_{position}", "name": piece.name, "arguments": ""}
                item["call_id"] = piece.id or f"call_{position}"
                out.append(_named({"type": "response.output_item.added", "output_index": position, "item": item}))
                for fragment in _cut(piece.arguments, piece.pieces):
                    out.extend([piece.pause] if piece.pause else [])
                    kind = "response.function_call_arguments.delta"
                    out.append(_named({"type": kind, **place, "delta": fragment}))
                kind = "response.function_call_arguments.done"
                out.append(_named({"type": kind, **place, "arguments": piece.arguments}))
                item = {**item, "arguments": piece.arguments}
                out.append(_named({"type": "response.output_item.done", "output_index": position, "item": item}))
                position += 1
            case Cut():
                return Reply((*out, None))
            case _:
                out.append(piece)
    tokens = {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
    out.append(_named({"type": "response.completed", "response": {"id": "r1", "status": "completed", "usage": tokens}}))
    return Reply(tuple(out))


def replay(body: bytes, *, pause: float = 0.0, cuts: Sequence[int] | None = None, cut: bool = False) -> Reply:
    """A recorded body, with a pause before each of its events, or before each of its pieces when `cuts` gives offsets."""
    if cuts is None:
        parts = [part + b"\n\n" for part in body.split(b"\n\n") if part]
    else:
        offsets = [0, *sorted(cuts), len(body)]
        parts = [body[start:end] for start, end in pairwise(offsets) if start < end]
    out: list[float | bytes | None] = []
    for part in parts:
        out.extend([pause, part] if pause else [part])
    return Reply((*out, None) if cut else tuple(out))


def error(status: int, message: str, *, retry_after: float | str | None = None, code: str | None = None) -> Reply:
    """A refusal, as OpenAI words them."""
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    body = {"error": {"message": message, "type": "error", "code": code}}
    return Reply((json.dumps(body).encode(),), status, headers)


def page(
    text: str = "<html><body>Welcome</body></html>", *, content_type: str = "text/html", status: int = 200
) -> Reply:
    """A page that isn't a stream."""
    return Reply((text.encode(),), status, {"content-type": content_type})


class _ServerProcess:
    """The process of all servers that this one starts; begun with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._parent = 0

    def ask(self, what: Mapping[str, object]) -> int:
        """Open or close a server; return its port."""
        with self._lock:
            process = self._process
            if process is None or self._parent != os.getpid():  # a fork shares its parent's pipes with it
                process = self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(what).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, "the scripted server doesn't answer"
            return int(line)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", str(Path(__file__).resolve())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process, self._parent = process, os.getpid()
        atexit.register(self._stop)
        return process

    def _stop(self) -> None:
        if self._process is not None and self._parent == os.getpid():
            with self._process as process:  # closes its pipes and waits
                process.kill()


_SERVERS = _ServerProcess()


class ScriptedServer:
    """The server; it listens on loopback while the `with` block runs."""

    def __init__(self, script: Sequence[Reply] | Mapping[str, Sequence[Reply]], *, cycle: bool = False) -> None:
        by_model = script if isinstance(script, Mapping) else {"": script}
        self._script = {name: [_reply_to_json(reply) for reply in replies] for name, replies in by_model.items()}
        self._cycle = cycle
        self.port = 0

    def __enter__(self) -> Self:
        self.port = _SERVERS.ask({"script": self._script, "cycle": self._cycle})
        return self

    def __exit__(self, *exc: object) -> None:
        _SERVERS.ask({"close": self.port})

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[SentRequest]:
        """Every request so far, in the order in which they came."""
        found: list[dict[str, Any]] = self._ask("requests")
        return [_sent_request(item) for item in found]

    @property
    def open_connections(self) -> int:
        """How many connections clients hold open now."""
        return int(self._ask("connections"))

    def go_on(self) -> None:
        """End one pause without end, of now or the next one."""
        self._ask("go_on")

    def wait_ended(self, count: int, timeout: float = 5.0) -> list[SentRequest]:
        """The requests, once `count` of them have ended; a server learns a little later that a client has left."""
        self._ask(f"wait/{count}/{timeout}", timeout=timeout + 5)
        return self.requests

    def wait_connections(self, count: int, timeout: float = 5.0) -> int:
        """How many connections are open, once no more than `count` are or time is up."""
        return int(self._ask(f"wait_connections/{count}/{timeout}", timeout=timeout + 5))

    def _ask(self, what: str, timeout: float = 5.0) -> Any:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{self.port}/_/{what}", timeout=timeout) as answer:
            return json.loads(answer.read())


def _chunk(delta: Mapping[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish}
    return _event({"id": "c1", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice]})


def _event(data: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def _named(data: Mapping[str, object]) -> bytes:
    return f"event: {data['type']}\n".encode() + _event(data)


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // pieces))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _sent_request(item: dict[str, Any]) -> SentRequest:
    item["sent_at"] = tuple(item["sent_at"])
    return SentRequest(**item)


def _reply_to_json(reply: Reply) -> dict[str, object]:
    pieces = [base64.b64encode(piece).decode() if isinstance(piece, bytes) else piece for piece in reply.pieces]
    return {"status": reply.status, "headers": dict(reply.headers), "pieces": pieces}


# From here on: the server's own process.


class _Server:
    def __init__(self, script: dict[str, list[dict[str, Any]]], cycle: bool) -> None:
        self.script = script
        self.cycle = cycle
        self.taken: dict[str, int] = {}
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.opened = 0
        self.changed = asyncio.Condition()
        self.go_on = asyncio.Semaphore(0)
        self.serving: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        self.listener = await asyncio.start_server(self.start_serving, "127.0.0.1", 0)
        return int(self.listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Refuse connections from now on, and break off those that are open."""
        self.listener.close()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    def start_serving(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.opened
        self.opened += 1
        is_client = False
        try:
            while head := await _read_head(reader):
                path, headers = head
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if path.startswith("/_/"):
                    await self.answer(path.split("/")[2:], writer)
                    break
                if not is_client:
                    is_client = True
                    self.connections += 1
                if not await self.reply(path, headers, body, number, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            if is_client:
                self.connections -= 1
                await self.tell()

    async def reply(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection may serve another request."""
        data: dict[str, Any] = json.loads(body) if body else {}
        request: dict[str, Any] = {"path": path, "headers": headers, "body": data, "at": time.monotonic()}
        request |= {"sent_at": [], "outcome": "open", "connection": number}
        self.requests.append(request)
        reply = self.take(str(data.get("model", "")))
        head = [
            f"HTTP/1.1 {reply['status']} Scripted",
            *(f"{name}: {value}" for name, value in reply["headers"].items()),
        ]
        writer.write("\r\n".join([*head, "transfer-encoding: chunked", "\r\n"]).encode())
        # A client that leaves is noticed while the script pauses: it sends nothing while it listens.
        left = asyncio.create_task(reader.read(1))
        try:
            outcome = await self.write(reply["pieces"], request["sent_at"], left, writer)
            if outcome == "served":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except ConnectionError:
            outcome = "left"
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        request["outcome"] = outcome
        await self.tell()
        if outcome == "cut":
            writer.transport.abort()
        return outcome == "served"

    async def write(
        self, pieces: list[Any], sent_at: list[float], left: "asyncio.Task[bytes]", writer: asyncio.StreamWriter
    ) -> str:
        due = time.monotonic()
        for piece in pieces:
            if piece is None:
                await writer.drain()
                return "cut"
            if isinstance(piece, str):
                data = base64.b64decode(piece)
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await writer.drain()
                sent_at.append(time.monotonic())
                continue
            if piece == math.inf:
                await self.go_on.acquire()
                continue
            due += piece  # by the clock, so that late wake-ups don't add up
            await asyncio.wait([left], timeout=max(0.0, due - time.monotonic()))
            if left.done():
                return "left"
        return "served"

    def take(self, model: str) -> dict[str, Any]:
        name = model if model in self.script else ""
        replies = self.script.get(name, [])
        position = self.taken.get(name, 0)
        self.taken[name] = position + 1
        if replies and self.cycle:
            position %= len(replies)
        if position < len(replies):
            return replies[position]
        message = f"the script for {model!r} has {len(replies)} replies"
        return _reply_to_json(error(400, message))

    async def answer(self, what: list[str], writer: asyncio.StreamWriter) -> None:
        match what:
            case ["requests"]:
                answer: Any = self.requests
            case ["go_on"]:
                self.go_on.release()
                answer = True
            case ["wait", count, timeout]:
                answer = await self.wait(lambda: self.ended() >= int(count), float(timeout))
            case ["wait_connections", count, timeout]:
                await self.wait(lambda: self.connections <= int(count), float(timeout))
                answer = self.connections
            case _:
                answer = self.connections
        data = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(data), data))
        await writer.drain()

    def ended(self) -> int:
        return sum(request["outcome"] != "open" for request in self.requests)

    async def wait(self, is_true: Callable[[], bool], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(is_true)
        except TimeoutError:
            return False
        return True

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    line = await reader.readline()
    if not line.strip():
        return None
    headers: dict[str, str] = {}
    while (field_line := (await reader.readline()).decode("latin-1").strip()) != "":
        name, _, value = field_line.partition(":")
        headers[name.lower()] = value.strip()
    return line.decode("latin-1").split()[1], headers


async def _main() -> None:
    opened: dict[int, _Server] = {}
    loop = asyncio.get_running_loop()
    # The parent's end of the pipe closes when it dies, however it dies: no server is left behind.
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        settings = json.loads(line)
        port = settings.get("close")
        if port is None:
            scripted = _Server(settings["script"], settings["cycle"])
            port = await scripted.open()
            opened[port] = scripted
        else:
            await opened.pop(port).close()
        print(port, flush=True)
    for scripted in opened.values():
        await scripted.close()


if __name__ == "__main__":
    asyncio.run(_main())

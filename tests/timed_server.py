"""A real HTTP server whose answers take scripted time: the clock moves by what a script says, and by nothing else.

    with TimedServer(script) as server:
        measured = asyncio.run(measure(app, models, cases, now=server.clock.now))

Before each piece the server moves the clock, sends the piece, and waits until the reader of the answer has looked at
the clock. So the times of a measurement are those of its script, however busy the machine is.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

WAIT_S = 30.0
"""A reader that doesn't look at the clock within this is stuck, and the answer goes on without it."""


class ScriptedClock:
    """Seconds that pass only by `advance`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._now_s = 0.0
        self._reads = 0

    def now(self) -> float:
        """The time; whoever waits for a look learns of this one."""
        with self._changed:
            self._reads += 1
            self._changed.notify_all()
            return self._now_s

    def advance(self, seconds: float) -> int:
        """Move on; gives how often the clock had been read by then."""
        with self._changed:
            self._now_s += seconds
            return self._reads

    def wait_read(self, reads: int) -> None:
        """Wait until it has been read once more."""
        with self._changed:
            self._changed.wait_for(lambda: self._reads > reads, WAIT_S)


@dataclass(frozen=True)
class Said:
    """A piece of an answer: text, or a call of a tool in as many pieces as its arguments have."""

    after_s: float
    text: str = ""
    tool: str = ""
    arguments: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """An answer: its pieces, and the tokens that it costs; or a refusal with this status."""

    pieces: Sequence[Said] = ()
    tokens: tuple[int, int] = (100, 10)
    status: int = 200


Script = Callable[[str, str, int], Answer]
"""The answer for a model's name, what the user said last, and how many turns there were since."""


class TimedServer:
    """The server; it listens on loopback while the `with` block runs."""

    def __init__(self, script: Script) -> None:
        self.clock = ScriptedClock()
        self.requests: list[dict[str, Any]] = []
        self._script = script
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                scripted.requests.append(body)
                scripted.answer(body, self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def answer(self, body: dict[str, Any], handler: BaseHTTPRequestHandler) -> None:
        """Send the scripted answer to one request."""
        messages = body["messages"]
        last = max(index for index, message in enumerate(messages) if message["role"] == "user")
        turns = sum(message["role"] == "assistant" for message in messages[last:])
        answer = self._script(body["model"], messages[last]["content"], turns)
        handler.send_response(answer.status)
        handler.send_header("content-type", "text/event-stream" if answer.status == 200 else "application/json")
        handler.end_headers()
        if answer.status != 200:
            handler.wfile.write(b'{"error": {"message": "no such model"}}')
            return
        calls = 0
        for said in answer.pieces:
            if said.tool:
                function = {"name": said.tool, "arguments": ""}
                head = {"index": calls, "id": f"call_{calls}", "type": "function", "function": function}
                self._send(handler, said.after_s, {"tool_calls": [head]})
                for piece in said.arguments:
                    self._send(
                        handler, said.after_s, {"tool_calls": [{"index": calls, "function": {"arguments": piece}}]}
                    )
                calls += 1
            else:
                self._send(handler, said.after_s, {"content": said.text})
        end: dict[str, Any] = {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]
        }
        usage = {"prompt_tokens": answer.tokens[0], "completion_tokens": answer.tokens[1]}
        handler.wfile.write(_event(end) + _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")

    def _send(self, handler: BaseHTTPRequestHandler, after_s: float, delta: dict[str, Any]) -> None:
        reads = self.clock.advance(after_s)
        handler.wfile.write(_event({"choices": [{"index": 0, "delta": delta}]}))
        handler.wfile.flush()
        if after_s:  # what takes no time is read by somebody who doesn't look at the clock, such as a judge
            self.clock.wait_read(reads)


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", **data}).encode() + b"\n\n"

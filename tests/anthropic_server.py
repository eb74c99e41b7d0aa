"""A Messages API that refuses what the vendor's refuses, on loopback in a thread of this process.

    with AnthropicServer([[thinks("Hm."), uses("get", city="Seoul")], [says("Sunny.")]]) as server:
        model = AnthropicModel("claude-sonnet-5", base_url=server.base_url, api_key="k")

It signs thinking for the model, and checks what comes back as the vendor does: the order of roles and blocks, one result
for each call right behind it, signatures, blanks, cache marks, what the model's version takes. A request that it refuses
gets a 400 with the vendor's words, and takes no answer out of the script.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Block = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The blocks of one answer, and why it stopped; worked out where that isn't given."""

    blocks: tuple[Block, ...]
    stop_reason: str | None = None
    usage: tuple[tuple[str, Any], ...] = ()
    details: Block | None = None


@dataclass(frozen=True)
class Refusal:
    """An answer that is none."""

    status: int
    kind: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


def says(text: str) -> Block:
    return {"type": "text", "text": text}


def thinks(text: str) -> Block:
    return {"type": "thinking", "thinking": text}


def uses(name: str, id: str = "", **arguments: Any) -> Block:
    return {"type": "tool_use", "id": id or f"toolu_{name}", "name": name, "input": arguments}


class Refused(Exception):
    """What is wrong with a request."""


class AnthropicServer:
    """The server; `bodies` and `headers` are those of every request, `refused` the words of each refusal.

    `binds` makes a signature good only for the instructions that it was given under, as the newest models do.
    """

    def __init__(self, script: Sequence[Sequence[Block] | Answer | Refusal], *, binds: bool = False) -> None:
        self.script = list(script)
        self.binds = binds
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refused: list[str] = []
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    outer.answer(self, body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Check a request, and stream the next answer of the script."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.bodies.append(body)
        self.headers.append(headers)
        if handler.path == "/v1/messages/count_tokens":
            _send(handler, 200, {"input_tokens": 100 + len(json.dumps(body["messages"]))})
            return
        assert handler.path == "/v1/messages", handler.path
        try:
            check(body, headers, self.sign)
        except Refused as problem:
            self.refused.append(str(problem))
            _send(handler, 400, _error("invalid_request_error", str(problem)))
            return
        answer = self.script.pop(0)
        if isinstance(answer, Refusal):
            _send(handler, answer.status, _error(answer.kind, answer.message), dict(answer.headers))
            return
        made = answer if isinstance(answer, Answer) else Answer(tuple(answer))
        data = b"".join(self.write(made, body))
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("request-id", "req_1")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def sign(self, thinking: str, body: dict[str, Any]) -> str:
        bound = [body["model"], thinking, _texts(body.get("system", [])) if self.binds else ""]
        return hashlib.sha256(json.dumps(bound).encode()).hexdigest()

    def write(self, answer: Answer, body: dict[str, Any]) -> Iterator[bytes]:
        """The events of an answer."""
        usage: Block = {"input_tokens": 10, "output_tokens": 1, **dict(answer.usage)}
        message: Block = {"id": f"msg_{len(self.bodies)}", "type": "message", "role": "assistant", "content": []}
        yield _event("message_start", message={**message, "model": body["model"], "usage": usage})
        for index, block in enumerate(answer.blocks):
            deltas: list[Block] = []
            start: Block
            match block["type"]:
                case "text":
                    start = {"type": "text", "text": ""}
                    deltas = [{"type": "text_delta", "text": piece} for piece in _cut(block["text"])]
                case "thinking":
                    start = {"type": "thinking", "thinking": "", "signature": ""}
                    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(block["thinking"])]
                    deltas.append({"type": "signature_delta", "signature": self.sign(block["thinking"], body)})
                case "tool_use" | "server_tool_use":
                    start = {**block, "input": {}}
                    pieces = ["", *_cut(json.dumps(block["input"]))] if block["input"] else [""]
                    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
                case _:
                    start = block
            yield _event("content_block_start", index=index, content_block=start)
            yield _event("ping")
            for delta in deltas:
                yield _event("content_block_delta", index=index, delta=delta)
            yield _event("content_block_stop", index=index)
        asks = any(block["type"] == "tool_use" for block in answer.blocks)
        reason = answer.stop_reason or ("tool_use" if asks else "end_turn")
        delta: Block = {"stop_reason": reason, "stop_sequence": None}
        if answer.details is not None:
            delta["stop_details"] = answer.details
        yield _event("message_delta", delta=delta, usage={"output_tokens": 20})
        yield _event("message_stop")


FIELDS = {
    "model", "max_tokens", "messages", "stream", "system", "tools", "tool_choice", "thinking", "output_config",
    "temperature", "top_p", "top_k", "stop_sequences", "metadata", "container", "mcp_servers", "service_tier",
}  # fmt: skip
NEW = re.compile(r"opus-4-[78]|sonnet-5|fable|opus-5|haiku-5")
NO_PREFILL = re.compile(r"4-[678]|(sonnet|opus|haiku)-5|fable")


def check(body: dict[str, Any], headers: dict[str, str], sign: Any) -> None:
    """Raise `Refused` for what the vendor answers 400 to."""
    _want("x-api-key" in headers and "authorization" not in headers, "x-api-key header is required")
    _want(headers.get("anthropic-version") == "2023-06-01", "anthropic-version: header is required")
    for name in body:
        _want(name in FIELDS, f"{name}: Extra inputs are not permitted")
    model, messages = body["model"], body["messages"]
    _want(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
    thinking: Block = body.get("thinking") or {}
    is_manual = thinking.get("type") == "enabled"
    if NEW.search(model):
        for name in ("temperature", "top_p", "top_k"):
            _want(name not in body, f"{name} isn't supported by this model")
        _want(not is_manual, "thinking.type.enabled is not supported for this model. Use thinking.type.adaptive")
    if is_manual:
        _want(1024 <= thinking["budget_tokens"] < body["max_tokens"], "max_tokens must be greater than budget_tokens")
        forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
        _want(not forced, "Thinking may not be enabled when tool_choice forces tool use")
    for block in body.get("system", []):
        _want(block["text"].strip() != "", "system: text content blocks must be non-empty")
    _want(_count(body) <= 4, f"A maximum of 4 blocks with cache_control may be provided. Found {_count(body)}")
    names = [tool["name"] for tool in body.get("tools", [])]
    _want(len(set(names)) == len(names), "tools: Tool names must be unique")
    for tool in body.get("tools", []):
        _want("type" in tool or tool["input_schema"].get("type") == "object", "tools.input_schema.type: Field required")
        schema = tool.get("input_schema", {})
        _want(not {"oneOf", "allOf", "anyOf"} & set(schema), "input_schema does not support oneOf, allOf, or anyOf at the top level")  # fmt: skip
        keys = all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", key) for key in schema.get("properties", {}))
        _want(keys, "tools.0.custom.input_schema.properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'")  # fmt: skip
    ids = [block["id"] for message in messages for block in message["content"] if block["type"] == "tool_use"]
    _want(len(set(ids)) == len(ids), "messages: `tool_use` ids must be unique")
    _want(bool(messages) and messages[0]["role"] == "user", "messages: first message must use the user role")
    if messages[-1]["role"] == "assistant":
        is_paused = any(block["type"].endswith("tool_use") for block in messages[-1]["content"])
        _want(is_paused or not NO_PREFILL.search(model), "This model does not support assistant message prefill")
        last = messages[-1]["content"][-1]
        _want(last["type"] != "text" or last["text"] == last["text"].rstrip(), "final assistant content cannot end with trailing whitespace")  # fmt: skip
    for number, message in enumerate(messages):
        before = messages[number - 1] if number else None
        _want(before is None or before["role"] != message["role"], "messages: roles must alternate")
        behind = messages[number + 1] if number + 1 < len(messages) else None
        _check_message(number, message, before, behind, body, sign)
    if is_manual and messages[-1]["role"] == "user" and messages[-1]["content"][0]["type"] == "tool_result":
        first = messages[-2]["content"][0]["type"]
        _want("thinking" in first, f"Expected `thinking` or `redacted_thinking`, but found `{first}`")


def _check_message(
    number: int, message: Block, before: Block | None, behind: Block | None, body: dict[str, Any], sign: Any
) -> None:
    blocks, where = message["content"], f"messages.{number}"
    _want(bool(blocks), f"{where}: content must be non-empty")
    asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
    for id in asked:
        _want(re.fullmatch(r"[a-zA-Z0-9_-]+", id) is not None, f"{where}: tool_use.id: String should match pattern")
    _want(len(set(asked)) == len(asked), f"{where}: tool_use ids must be unique")
    if asked:
        results = [b["tool_use_id"] for b in (behind or {"content": []})["content"] if b["type"] == "tool_result"]
        missing = [id for id in asked if id not in results]
        _want(
            not missing, f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {missing}"
        )
    known = [block["id"] for block in (before or {"content": []})["content"] if block["type"] == "tool_use"]
    is_behind_text = False
    for block in blocks:
        match block["type"]:
            case "text":
                is_behind_text = True
                _want(block["text"].strip() != "", f"{where}: text content blocks must contain non-whitespace text")
            case "tool_use":
                _want(isinstance(block["input"], dict), f"{where}: tool_use.input: Input should be a valid dictionary")
            case "tool_result":
                _want(block["tool_use_id"] in known, f"{where}: unexpected `tool_use_id` found in `tool_result` blocks")
                _want(not is_behind_text, f"{where}: tool_result blocks must come before text")
                _want(block.get("content") != "", f"{where}: tool_result content is empty")
            case "thinking":
                signed = block.get("signature") == sign(block["thinking"], body)
                _want(signed, f"{where}: Invalid `signature` in `thinking` block")
                _want("cache_control" not in block, f"{where}: thinking blocks cannot have cache_control")
            case "image" | "document":
                source = block["source"]
                _want(source["type"] != "url" or source["url"].startswith("http"), f"{where}: invalid url")
            case _:
                pass
    if message["role"] == "assistant":
        _want("thinking" not in blocks[-1]["type"], f"{where}: The final block in an assistant message cannot be `thinking`")  # fmt: skip


def _want(is_so: bool, problem: str) -> None:
    if not is_so:
        raise Refused(problem)


def _count(body: dict[str, Any]) -> int:
    rows = [body.get("system", []), body.get("tools", []), *(message["content"] for message in body["messages"])]
    return sum("cache_control" in block for row in rows for block in row)


def _texts(blocks: list[Block]) -> list[str]:
    return [block["text"] for block in blocks]


def _cut(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _error(kind: str, message: str) -> Block:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_9"}


def _send(handler: BaseHTTPRequestHandler, status: int, data: Block, headers: dict[str, str] | None = None) -> None:
    packed = json.dumps(data).encode()
    handler.send_response(status)
    for name, value in {"content-type": "application/json", "request-id": "req_9", **(headers or {})}.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(packed)))
    handler.end_headers()
    handler.wfile.write(packed)

#!/usr/bin/env bash
# openai 3.57.0 and httpx-sse 0.4.3: server-sent events with an `id`, and a comment between them that keeps the connection
# open, as gateways send while a model thinks.
# Expected by most: comments are passed over, as the format says, and so is an event without data.
# Seen: the empty line behind the comment gives an event with empty data, but only once an event had an `id`: the id is
# kept, as the format wants, and counts as content. openai reads "" as JSON and the stream ends in a JSONDecodeError.
# Without ids the same stream is read whole, so a gateway that begins to number its events breaks its slow answers.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0 httpx-sse==0.4.3 httpx==0.28.1
"$work/venv/bin/python" - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import httpx_sse
import openai

CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CHUNK["choices"] = [{"index": 0, "delta": {"content": "Hello."}, "finish_reason": None}]
EVENT = f"data: {json.dumps(CHUNK)}\n\n"
COMMENT = ": still thinking\n\n"
PLAIN = EVENT + COMMENT + EVENT + "data: [DONE]\n\n"
NUMBERED = f"id: 1\n{EVENT}{COMMENT}id: 2\n{EVENT}data: [DONE]\n\n"


class Server(BaseHTTPRequestHandler):
    body: bytes

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(Server.body)))
        self.end_headers()
        self.wfile.write(Server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
client = openai.OpenAI(api_key="none", base_url=address)


def chunks() -> str:
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)
    try:
        return f"{len(list(stream))} chunks"
    except json.JSONDecodeError as error:
        return type(error).__name__


def empty_events() -> int:
    with httpx.Client() as plain, httpx_sse.connect_sse(plain, "POST", address) as source:
        return [event.data for event in source.iter_sse()].count("")


seen = {}
for name, text in (("plain", PLAIN), ("numbered", NUMBERED)):
    Server.body = text.encode()
    seen[name] = chunks(), empty_events()
print(seen)
assert seen == {"plain": ("2 chunks", 0), "numbered": ("JSONDecodeError", 1)}, seen
PYTHON
echo "as stated"

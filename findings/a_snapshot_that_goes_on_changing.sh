#!/usr/bin/env bash
# openai 3.57.0: the snapshots that the stream's helper gives with each piece of an answer.
# Expected by most: a snapshot is the answer as it stood at that piece, so one may keep it, queue it or compare two.
# Seen: every `chunk` event has the same object, which goes on growing: kept ones all show the end. The snapshot of
# `content.delta`, in the same stream, is a text and stays. So a screen that draws from a queue shows words before their
# event, and "what is new since the last snapshot" is always nothing.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
"$work/venv/bin/python" - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

BODY = ""
for delta, reason in (({"role": "assistant", "content": "It is "}, None), ({"content": "on its way."}, None), ({}, "stop")):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": reason}]
    BODY += f"data: {json.dumps(chunk)}\n\n"
BODY += "data: [DONE]\n\n"


class Server(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Where is it?"}]) as stream:
    events = list(stream)
whole = [event.snapshot.choices[0].message.content for event in events if event.type == "chunk"]
texts = [event.snapshot for event in events if event.type == "content.delta"]
print(whole, texts)
assert whole == ["It is on its way."] * 3, whole
assert len({id(event.snapshot) for event in events if event.type == "chunk"}) == 1
assert texts == ["It is ", "It is on its way."], texts
PYTHON
echo "as stated"

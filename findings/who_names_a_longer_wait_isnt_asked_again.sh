#!/usr/bin/env bash
# openai 3.57.0: a server that is busy and names when to come back, once in 1 s and once in 121 s.
# Expected by most: `max_retries` says how often a request is tried again; a long wait is waited for, or cut to the
# longest that the client allows.
# Seen: above two minutes nothing is tried again, whatever `max_retries` says: the error comes at once. Without the header
# the same answer is tried again.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
"$work/venv/bin/python" - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}
ANSWER = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}


class Busy(BaseHTTPRequestHandler):
    """Busy at the first request, and free at the next."""

    wait: str | None
    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Busy.requests += 1
        body = json.dumps(ANSWER if Busy.requests > 1 else {"error": {"message": "busy"}}).encode()
        self.send_response(200 if Busy.requests > 1 else 429)
        if Busy.requests == 1 and Busy.wait:
            self.send_header("Retry-After", Busy.wait)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=5)
for wait, expected in (("1", 2), (None, 2), ("121", 1)):
    Busy.wait, Busy.requests = wait, 0
    try:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    except openai.RateLimitError as error:
        print(error)
    print("Retry-After", wait, "->", Busy.requests, "requests")
    assert Busy.requests == expected, (wait, Busy.requests)
PYTHON
echo "as stated"

#!/usr/bin/env bash
# openai 3.57.0: a `base_url` with a query, as gateways hand out with their version or tenant.
# Expected by most: the path of each call goes before the query, or such an address is refused.
# Seen: the path is put behind the query, so it becomes a part of the last parameter's value: the request goes to
# /openai/ with version=1chat/completions, and the gateway's answer is about an address that nobody wrote.
# `default_query` is the place that works.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
"$work/venv/bin/python" - <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai


class Gateway(BaseHTTPRequestHandler):
    paths: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        Gateway.paths.append(self.path)
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}/openai"
for client in (
    openai.OpenAI(api_key="none", base_url=f"{address}?version=1"),
    openai.OpenAI(api_key="none", base_url=address, default_query={"version": "1"}),
):
    try:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    except openai.NotFoundError:
        pass
print(*Gateway.paths)
assert Gateway.paths == ["/openai/?version=1chat/completions", "/openai/chat/completions?version=1"], Gateway.paths
PYTHON
echo "as stated"

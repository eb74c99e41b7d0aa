#!/usr/bin/env bash
# anthropic 2.14.0: a streamed answer that reaches its limit of tokens inside the arguments of a tool call.
# Expected by most: the final message has no such call, or one whose input is still text; or reading it is an error, as
# for the end of JSON that isn't there.
# Seen: the message has the call, with a dict as its input: {"to": "kim", "won": 12} of an amount that was going to be
# 125000. Each piece is parsed as if the JSON ended there, and the last of these stays. Only `stop_reason` tells it from a
# call that the model has finished, so a loop over the blocks pays 12 won.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check anthropic==2.14.0
"$work/venv/bin/python" - <<'PYTHON'
import http.server
import json
import threading
from typing import Any

import anthropic


def event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": []}
MESSAGE |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "pay", "input": {}}
BODY = event("message_start", message=MESSAGE) + event("content_block_start", index=0, content_block=CALL)
for piece in ("", '{"to": "ki', 'm", "won": 12'):
    BODY += event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": piece})
BODY += event("content_block_stop", index=0)
BODY += event("message_delta", delta={"stop_reason": "max_tokens", "stop_sequence": None}, usage={"output_tokens": 9})
BODY += event("message_stop")


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY.encode())

    def log_message(self, *args: object) -> None:
        pass


schema = {"type": "object", "properties": {"to": {"type": "string"}, "won": {"type": "integer"}}}
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.server_port}", api_key="any")
    with client.messages.stream(
        model="claude-sonnet-5",
        max_tokens=9,
        messages=[{"role": "user", "content": "Pay Kim 125,000 won."}],
        tools=[{"name": "pay", "input_schema": schema}],
    ) as stream:
        message = stream.get_final_message()
    server.shutdown()
(block,) = message.content
print(block, message.stop_reason)
assert (block.type, block.name, block.input) == ("tool_use", "pay", {"to": "kim", "won": 12})
assert message.stop_reason == "max_tokens"
PYTHON
echo "as stated"

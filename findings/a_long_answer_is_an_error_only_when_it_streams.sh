#!/usr/bin/env bash
# openai 3.57.0: an answer of plain text that reaches its limit of tokens, asked for at one go and as a stream. No schema
# and no tool is in the request.
# Expected by most: both give the text, with the finish reason "length".
# Seen: `create()` does. The stream's helper gives every piece and says that the content is done, and then
# `get_final_completion()` raises LengthFinishReasonError, "could not parse response content", though there was nothing to
# parse. So a program that limits its answers works until it streams them.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
"$work/venv/bin/python" - <<'PYTHON'
import http.server
import json
import threading

import openai

BASE = {"id": "chatcmpl-1", "created": 1796000000, "model": "gpt-4.1"}
WHOLE = {"index": 0, "message": {"role": "assistant", "content": "Once upon"}, "finish_reason": "length"}
PIECES = [({"role": "assistant", "content": "Once "}, None), ({"content": "upon"}, None), ({}, "length")]


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked.get("stream"):
            chunks = [
                {**BASE, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": d, "finish_reason": f}]}
                for d, f in PIECES
            ]
            kind, body = "text/event-stream", "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
            body += "data: [DONE]\n\n"
        else:
            kind, body = "application/json", json.dumps({**BASE, "object": "chat.completion", "choices": [WHOLE]})
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}", api_key="any")
    messages = [{"role": "user", "content": "Tell me a story."}]
    at_once = client.chat.completions.create(model="gpt-4.1", messages=messages, max_completion_tokens=2).choices[0]
    with client.chat.completions.stream(model="gpt-4.1", messages=messages, max_completion_tokens=2) as stream:
        told = [event.content for event in stream if event.type == "content.done"]
        try:
            final = stream.get_final_completion().choices[0].message.content
        except openai.LengthFinishReasonError as error:
            final = error
    server.shutdown()
print(at_once.message.content, at_once.finish_reason, told, repr(final))
assert (at_once.message.content, at_once.finish_reason) == ("Once upon", "length")
assert told == ["Once upon"]
assert isinstance(final, openai.LengthFinishReasonError)
PYTHON
echo "as stated"

#!/usr/bin/env bash
# httpx 0.28.1 beside requests 2.34.2: an address that has a query already, and `params`.
# Expected by most: `params` are added to the query of the address, as requests does, which httpx follows; and an empty
# dict adds nothing.
# Seen: they take its place, and an empty dict leaves no query at all. So a tool that follows a `next` link of an API, and
# passes its (empty) parameters on, asks for the first page for ever, and an address loses its version or signature. The
# parameters of a client do the same to it without a word at the call.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 requests==2.34.2
"$work/venv/bin/python" - <<'PYTHON'
import httpx
import requests

PAGE = "http://shop.example/orders?page=2"
asked: list[str] = []


def answer(request: httpx.Request) -> httpx.Response:
    asked.append(str(request.url))
    return httpx.Response(200)


with httpx.Client(transport=httpx.MockTransport(answer)) as client:
    client.get(PAGE)
    client.get(PAGE, params={"open": "1"})
    client.get(PAGE, params={})
with httpx.Client(transport=httpx.MockTransport(answer), params={"shop": "7"}) as client:
    client.get(PAGE)
print(*asked)
assert asked == [PAGE] + ["http://shop.example/orders" + query for query in ("?open=1", "", "?shop=7")], asked
for params, query in (({"open": "1"}, "&open=1"), ({}, "")):
    assert requests.Request("GET", PAGE, params=params).prepare().url == PAGE + query
PYTHON
echo "as stated"

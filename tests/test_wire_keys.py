"""A model's key goes to its server alone: not to another origin by a redirect, nor into an error by an echo."""

import asyncio
import base64
import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from flowkit.errors import ModelError
from flowkit.messages import UserMessage
from flowkit.models.anthropic import AnthropicModel
from flowkit.models.base import Delta, ErrorDelta, ModelRequest
from flowkit.models.openai import OpenAIModel
from flowkit.models.recording import Recorder
from flowkit.models.wire.settings import Auth, ModelServer
from flowkit.models.wire.transport import ask_json
from tests.server import Reply, ScriptedServer, replay

KEY = "sk-secret-4711-abcdef"


class Answering(ThreadingHTTPServer):
    """A server that keeps the headers it got, and answers in one way."""

    def __init__(self, status: int, headers: Mapping[str, str], echoes: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.sends, self.echoes = status, headers, echoes
        self.got: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Answering  # pyright: ignore[reportIncompatibleVariableOverride]  # it is one of these

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.got.append({name.lower(): value for name, value in self.headers.items()})
        said = f"no key {KEY} here: {'x' * 270}{KEY}" if self.server.echoes else "fine"
        body = json.dumps({"error": {"message": said, "seen": [{KEY: f"Bearer {KEY}"}]}}).encode()
        self.send_response(self.server.status)
        for name, value in self.server.sends.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving(status: int, headers: Mapping[str, str] | None = None, *, echoes: bool = False) -> Generator[Answering]:
    with Answering(status, headers or {}, echoes) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: ModelServer) -> None:
    asyncio.run(ask_json(server, "/x", "m", {}, {}))


@pytest.mark.parametrize("auth", ["bearer", "x-api-key"])
def test_a_redirect_to_another_origin_takes_no_key_along(auth: Auth) -> None:
    with serving(200) as other, serving(307, {"location": f"{other.url}/stolen"}) as first:
        server = ModelServer(base_url=first.url, api_key=KEY, auth=auth, headers=(("x-team", f"of {KEY}"),))
        ask(server)
    assert KEY in str(first.got)
    assert len(other.got) == 1
    assert KEY not in str(other.got)


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
@pytest.mark.parametrize("auth", ["bearer", "x-api-key"])
def test_a_key_that_a_server_echoes_is_masked_in_the_error(status: int, auth: Auth) -> None:
    for api_key in (KEY, lambda: KEY):
        with serving(status, echoes=True) as first, pytest.raises(ModelError) as raised:
            ask(ModelServer(base_url=first.url, api_key=api_key, auth=auth))
        assert KEY in str(first.got)
        assert "sk-secret" not in str(raised.value)
        assert "sk-secret" not in str(raised.value.body)


async def read_stream(model: OpenAIModel | AnthropicModel | Recorder) -> list[Delta]:
    async with model.stream(ModelRequest((UserMessage("Hi"),))) as deltas:
        return [delta async for delta in deltas]


def echo(api: str) -> Reply:
    """An error inside a 200 that repeats the key, cut in the middle of it."""
    error = {"message": f"no key {KEY} here", "type": "server_error", "seen": [{KEY: f"Bearer {KEY}"}]}
    kind = {"type": "error", "error": error}
    body = b"event: error\n" if api != "chat" else b""
    body += b"data: " + json.dumps(kind if api != "chat" else {"error": error}).encode() + b"\n\n"
    middle = body.index(KEY.encode()) + 5
    return replay(body, cuts=[middle])


@pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
@pytest.mark.parametrize("way", ["setting", "function", "client", "header", "query"])
def test_a_key_that_is_echoed_inside_a_200_is_masked_wherever_it_was_set(api: str, way: str, tmp_path: Path) -> None:
    async def go(url: str) -> list[Delta]:
        settings: dict[str, Any] = {
            "api_key": KEY if way == "setting" else (lambda: KEY) if way == "function" else "none"
        }
        if way == "client":
            settings["http_client"] = httpx2.AsyncClient(headers={"x-gateway-token": KEY})
        elif way == "query":
            settings["http_client"] = httpx2.AsyncClient(params={"key": KEY})
        elif way == "header":
            settings["headers"] = {"x-gateway-auth": f"Basic {KEY}"}
        if api != "anthropic":
            settings["api"] = api
        kind: Any = AnthropicModel if api == "anthropic" else OpenAIModel
        model = Recorder(
            kind("claude-sonnet-5" if api == "anthropic" else "m", base_url=url, **settings), tmp_path / "r"
        )
        try:
            return await read_stream(model)
        finally:
            if "http_client" in settings:
                await settings["http_client"].aclose()

    with ScriptedServer([echo(api)]) as server:
        deltas = asyncio.run(go(server.base_url))
        (request,) = server.requests
    assert KEY in f"{request.path} {request.headers}"
    (failed,) = [delta for delta in deltas if isinstance(delta, ErrorDelta)]
    assert "no key ****" in str(failed.error)
    assert "sk-secret" not in f"{failed.error!r} {failed.error.body}"
    if way == "setting":
        # What a recording hides, it hides where the network cut it, too.
        pieces = [
            base64.b64decode(text) for text in re.findall(r'"([A-Za-z0-9+/=]{40,})"', (tmp_path / "r").read_text())
        ]
        assert KEY not in (tmp_path / "r").read_text()
        assert KEY.encode() not in b"".join(pieces)


def test_a_page_that_repeats_the_key_is_masked() -> None:
    async def go(url: str) -> None:
        await read_stream(OpenAIModel("m", base_url=url, api_key=KEY))

    shown = Reply((f"<html>{KEY}</html>".encode(),), headers={"content-type": "text/html"})
    with ScriptedServer([shown]) as server, pytest.raises(ModelError) as raised:
        asyncio.run(go(server.base_url))
    assert KEY not in f"{raised.value} {raised.value.body}"


@pytest.mark.parametrize("auth", ["bearer", "x-api-key"])
def test_a_redirect_takes_no_key_along_with_a_client_of_the_user(auth: Auth) -> None:
    async def go(first: str, other: str) -> None:
        async with httpx2.AsyncClient(headers={"x-gateway-token": KEY}, follow_redirects=True) as client:
            server = ModelServer(base_url=first, api_key=KEY, auth=auth, http_client=client)
            for _ in range(2):
                await ask_json(server, "/x", "m", {}, {})
            # Its own requests are its own.
            await client.post(other, json={}, headers={"x-api-key": KEY})

    with serving(200) as other, serving(307, {"location": f"{other.url}/stolen"}) as first:
        asyncio.run(go(first.url, f"{other.url}/mine"))
    assert KEY in str(first.got)
    assert len(other.got) == 3
    assert KEY not in str(other.got[:2])
    assert other.got[2]["x-api-key"] == KEY

"""A model's key goes to its server alone: not to another origin by a redirect, nor into an error by an echo."""

import asyncio
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from flowkit.errors import ModelError
from flowkit.models.wire.settings import Auth, Server
from flowkit.models.wire.transport import ask_json

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


def ask(server: Server) -> None:
    asyncio.run(ask_json(server, "/x", "m", {}, {}))


@pytest.mark.parametrize("auth", ["bearer", "x-api-key"])
def test_a_redirect_to_another_origin_takes_no_key_along(auth: Auth) -> None:
    with serving(200) as other, serving(307, {"location": f"{other.url}/stolen"}) as first:
        server = Server(base_url=first.url, api_key=KEY, auth=auth, headers=(("x-team", f"of {KEY}"),))
        ask(server)
    assert KEY in str(first.got)
    assert len(other.got) == 1
    assert KEY not in str(other.got)


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
@pytest.mark.parametrize("auth", ["bearer", "x-api-key"])
def test_a_key_that_a_server_echoes_is_masked_in_the_error(status: int, auth: Auth) -> None:
    for api_key in (KEY, lambda: KEY):
        with serving(status, echoes=True) as first, pytest.raises(ModelError) as raised:
            ask(Server(base_url=first.url, api_key=api_key, auth=auth))
        assert KEY in str(first.got)
        assert "sk-secret" not in str(raised.value)
        assert "sk-secret" not in str(raised.value.body)

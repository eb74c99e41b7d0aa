"""The guard of `flowkit mcp --http`: what `flowkit serve` refuses, this refuses, by the same probes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from flowkit import Agent, ConfigurationError, ScriptedModel, mcp_app
from flowkit.cli.serve import list_hosts
from flowkit.mcp import http
from flowkit.mcp.http import BOUNDS
from flowkit.web import server
from flowkit.web.server import bind
from tests.test_serve_guard import ALLOWED, HOSTS, ORIGINS, TOKENS, TYPES, Probe
from tests.web_server import TOKEN, Answer, Client, Hasty, serving

PING: Mapping[str, object] = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPT = {"accept": "application/json, text/event-stream"}
PATHS = ("/mcp", "/mcp/", "/elsewhere")


async def close_nothing() -> None:
    pass


def walk(
    folder: Path,
    check: Callable[[Client], Awaitable[None]],
    *,
    hosts: Callable[[int], Any] = lambda port: list_hosts("127.0.0.1", port, ()),
) -> None:
    """Check a server that listens at a port of this machine, as the command makes it."""

    async def go() -> None:
        listening = bind("127.0.0.1", 0)
        agent = Agent(ScriptedModel(["Hello."]), name="helper", cache=False)
        app = mcp_app(
            [agent],
            get_user=lambda _: "ann",
            journal=folder / "journal.sqlite3",
            token=TOKEN,
            allowed_hosts=hosts(listening.getsockname()[1]),
        )
        async with serving(app, close_nothing, listening=listening) as client:
            await check(client)

    asyncio.run(go())


async def ask(client: Client, method: str, path: str, probe: Probe) -> Answer:
    probe = probe.on(client.port)
    json = PING if method == "POST" else None
    headers = {**ACCEPT, **probe.headers}
    return await client.ask(method, probe.target.replace("{path}", path), json, headers=headers, lines=probe.lines)


@pytest.mark.parametrize("probes", [HOSTS, ORIGINS, TOKENS], ids=["hosts", "origins", "tokens"])
def test_what_is_wrong_is_refused_on_every_path_and_method(probes: list[Probe], tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        for path in PATHS:
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                for probe in probes:
                    answer = await ask(client, method, path, probe)
                    assert answer.status in probe.expected, f"{method} {path}: {probe.name}"
                    assert "access-control-allow-origin" not in answer.headers

    walk(tmp_path, check)


def test_a_page_of_another_port_of_this_machine_may_not_ask(tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        for origin in ("http://127.0.0.1:{next}", "http://localhost:{port}", "https://127.0.0.1:{port}"):
            answer = await ask(client, "POST", "/mcp", Probe(origin, (403,), {"origin": origin}))
            assert answer.status == 403, origin

    walk(tmp_path, check, hosts=lambda port: None)


def test_bodies_of_another_type_are_refused(tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        for probe in TYPES:
            answer = await ask(client, "POST", "/mcp", probe)
            # The package reads these two as the JSON that they are, whatever they are called.
            assert answer.status in (400, 415) or probe.name in ("gzip", "charset"), probe.name

    walk(tmp_path, check)


def test_this_machines_names_for_itself_are_answered(tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        for probe in ALLOWED:
            # A ping without a session is the package's to refuse.
            answer = await ask(client, "POST", "/mcp", probe)
            assert answer.status in (200, 202, 400), probe.name

    walk(tmp_path, check)


def test_a_name_of_ones_own_is_answered_at_every_port_and_its_pages_may_ask(tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        answered = (200, 400)  # a ping without a session is the package's to refuse
        for headers, expected in (
            ({"host": "shop.example"}, answered),
            ({"host": "shop.example:8443"}, answered),
            ({"host": "shop.example", "origin": "https://shop.example"}, answered),
            ({"host": "shop.example.evil.example"}, (421,)),
            ({"host": "shop.example:80:80"}, (421,)),
            ({"host": "shopxexample"}, (421,)),
            ({"host": "shop.example", "origin": "https://evil.example"}, (403,)),
        ):
            answer = await ask(client, "POST", "/mcp", Probe("named", expected, dict(headers)))
            assert answer.status in expected, headers

    walk(tmp_path, check, hosts=lambda port: ["shop.example:*"])


def test_a_body_that_is_too_large_is_refused_declared_or_not(tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        declared = await client.ask("POST", "/mcp", body=b"", headers={**ACCEPT, "content-length": "5000000"})
        assert declared.status == 413
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        headers = {**ACCEPT, "content-length": None, "transfer-encoding": "chunked"}
        chunked = await client.ask("POST", "/mcp", body=piece * 80 + b"0\r\n\r\n", headers=headers)
        assert chunked.status == 413
        client.token = None
        unknown = await client.ask("POST", "/mcp", body=b"", headers={**ACCEPT, "content-length": "5000000"})
        assert unknown.status == 401, "a client without the token learns nothing of the bounds"

    walk(tmp_path, check)


def test_a_head_that_is_too_long_or_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BoundedProtocol", Hasty)

    async def check(client: Client) -> None:
        answer = await ask(client, "POST", "/mcp", Probe("long head", (), {"x-long": "a" * 70_000}))
        assert answer.status == 431
        for start in (b"", b"POST /mc", b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(start)
            async with asyncio.timeout(30):
                assert await reader.read() == b""
            writer.close()

    walk(tmp_path, check)


def test_a_body_that_trickles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BOUNDS", replace(BOUNDS, body_s=0.1))

    async def check(client: Client) -> None:
        answer = await client.ask("POST", "/mcp", body=b"{", headers={**ACCEPT, "content-length": "9"})
        assert answer.status == 408

    walk(tmp_path, check)


def test_a_websocket_is_never_opened(tmp_path: Path) -> None:
    async def check(client: Client) -> None:
        upgrade = {"connection": "close, upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
        answer = await client.ask("GET", "/mcp", headers={**upgrade, "authorization": None})
        assert answer.status == 401
        assert "upgrade" not in answer.headers

    walk(tmp_path, check)


def test_a_port_that_is_taken_is_one_sentence() -> None:
    from flowkit.cli.mcp import bind_port

    with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigurationError, match="can't listen on"):
        bind_port("127.0.0.1", taken.getsockname()[1])

"""Every probe on every route: the routes are walked, so that a new one is covered by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from flowkit import Agent, Journal, ScriptedModel
from flowkit.cli.serve import list_hosts
from flowkit.web import server
from flowkit.web.endpoints import Endpoint
from flowkit.web.request_guard import SECURITY_HEADERS, Token
from flowkit.web.served import Bounds, make_served
from flowkit.web.server import bind
from flowkit.web.serving import WebApp
from tests.web_server import RUN, TOKEN, Answer, Client, Hasty, serving

Headers = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Probe:
    """A request with something wrong, and the statuses that may answer it."""

    name: str
    expected: tuple[int, ...]
    headers: Headers = field(default_factory=dict[str, str | None])
    lines: tuple[str, ...] = ()
    target: str = "{path}"

    def on(self, port: int) -> "Probe":
        """The probe of a server that listens there, `{port}`, with `{next}` beside it."""

        def fill_in(text: str | None) -> str | None:
            return None if text is None else text.replace("{port}", str(port)).replace("{next}", str(port + 1))

        headers = {name: fill_in(value) for name, value in self.headers.items()}
        return replace(self, headers=headers, lines=tuple(fill_in(line) or "" for line in self.lines))


HOSTS = [
    Probe(f"host {host}", (421,), {"host": host})
    for host in (
        "evil.example",
        "user@127.0.0.1:{port}",
        "127.0.0.1:{port}.evil.example",
        "0.0.0.0:{port}",
        "127.0.0.1",
        "127.0.0.1:{next}",
        "localhost..:{port}",
    )
] + [
    Probe("no host", (400, 421), {"host": None}),
    Probe("two hosts", (400, 421), lines=("host: 127.0.0.1:{port}",)),
    Probe("forwarded host alone", (421,), {"host": "evil.example", "x-forwarded-host": "127.0.0.1:{port}"}),
    Probe("absolute target", (421,), target="http://evil.example{path}"),
]
OWN = "http://127.0.0.1:{port}"
ORIGINS = [
    Probe(f"origin {origin}", (403,), {"origin": origin})
    for origin in (
        "https://evil.example",
        "null",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{next}",
        "http://localhost:{port}",
        "http://localhost:5173",
    )
] + [
    Probe("cross-site", (403,), {"sec-fetch-site": "cross-site"}),
    Probe("same-site", (403,), {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}),
    Probe("own origin, but cross-site", (403,), {"origin": OWN, "sec-fetch-site": "cross-site"}),
    Probe("in a frame", (403,), {"sec-fetch-site": "same-origin", "sec-fetch-dest": "iframe"}),
]
ALLOWED = [
    Probe(f"as {name}", (), {"host": f"{name}:{{port}}"}) for name in ("localhost", "localhost.", "127.0.0.1", "[::1]")
] + [
    Probe("own origin", (), {"origin": OWN, "sec-fetch-site": "same-origin"}),
    Probe("upper case", (), {"host": "LOCALHOST:{port}"}),
]
PROXIED = Probe("behind a named proxy", (), {"host": "localhost:5173", "origin": "http://localhost:5173"})
TOKENS = [
    Probe("no token", (401,), {"authorization": None}),
    Probe("wrong token", (401,), {"authorization": f"Bearer {TOKEN[:-1]}x"}),
    Probe("basic", (401,), {"authorization": f"Basic {TOKEN}"}),
    Probe("token in the query", (401,), {"authorization": None}, target="{path}?token=" + TOKEN),
    Probe("token in a cookie", (401,), {"authorization": None, "cookie": f"token={TOKEN}"}),
    Probe("two tokens", (401,), lines=(f"authorization: Bearer {TOKEN}",)),
]
TYPES = [
    Probe(f"type {kind}", (415,), {"content-type": kind})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", None)
] + [
    Probe("gzip", (415,), {"content-encoding": "gzip"}),
    Probe("charset", (415,), {"content-type": "application/json; charset=utf-16"}),
]


def make_web(folder: Path, port: int, **bounds: float) -> WebApp:
    agent = Agent(ScriptedModel([["Hello."]] * 100), name="helper", cache=False)
    journal = Journal(folder / "journal.sqlite3")
    served = make_served(agent)
    hosts = list_hosts("127.0.0.1", port, ["localhost:5173"])
    return WebApp(
        served, journal, Token(TOKEN, "ann"), hosts=hosts, bounds=replace(Bounds(), **bounds), owns_journal=True
    )


def is_any(_: Endpoint) -> bool:
    return True


def is_guarded(endpoint: Endpoint) -> bool:
    return not endpoint.is_page


def has_body(endpoint: Endpoint) -> bool:
    return endpoint.body is not None


def fill(endpoint: Endpoint) -> str:
    """A path of this route."""
    return endpoint.path.replace("{run}", RUN).replace("{chat}", "chat-1").replace("{file}", "nothing.js")


async def ask(client: Client, endpoint: Endpoint, probe: Probe) -> Answer:
    probe = probe.on(client.port)
    path = probe.target.replace("{path}", fill(endpoint))
    json = dict(endpoint.example) if endpoint.body is not None else None
    return await client.ask(endpoint.method, path, json, headers=probe.headers, lines=probe.lines)


def walk(folder: Path, check: Callable[[WebApp, Client], Awaitable[None]], **bounds: float) -> None:
    async def go() -> None:
        listening = bind("127.0.0.1", 0)
        web = make_web(folder, listening.getsockname()[1], **bounds)
        async with serving(web, listening=listening) as client:
            await check(web, client)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("probes", "is_for"),
    [
        (HOSTS, is_any),
        (ORIGINS, is_any),
        (TOKENS, is_guarded),
        (TYPES, has_body),
    ],
    ids=["hosts", "origins", "tokens", "types"],
)
def test_what_is_wrong_is_refused_on_every_route(
    probes: list[Probe], is_for: Callable[[Endpoint], bool], tmp_path: Path
) -> None:
    async def check(web: WebApp, client: Client) -> None:
        for endpoint in filter(is_for, web.endpoints):
            for probe in probes:
                answer = await ask(client, endpoint, probe)
                assert answer.status in probe.expected, f"{endpoint.method} {endpoint.path}: {probe.name}"
        assert web.journal.runs() == [], "nothing that was refused may start a run"

    walk(tmp_path, check)


def test_this_machines_names_for_itself_are_answered_on_every_route(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        for endpoint in web.endpoints:
            for probe in (*ALLOWED, PROXIED):
                answer = await ask(client, endpoint, probe)
                assert answer.status in (200, 201, 202, 204, 404, 409), f"{endpoint.path}: {probe.name}"

    walk(tmp_path, check)


def test_other_methods_are_refused_before_anybody_is_asked_who_they_are(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        client.token = None
        for endpoint in web.endpoints:
            for method in ("PUT", "TRACE", "DELETE", "PATCH", "OPTIONS", "BREW"):
                answer = await client.ask(method, fill(endpoint))
                assert answer.status == 405, f"{method} {endpoint.path}"
                assert endpoint.method in answer.headers["allow"]

    walk(tmp_path, check)


def test_every_answer_says_what_a_browser_may_do_with_it(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        for endpoint in web.endpoints:
            for token in (TOKEN, None):
                client.token = token
                answer = await ask(client, endpoint, Probe("plain", ()))
                for name, value in SECURITY_HEADERS.items():
                    assert answer.headers[name] == value, f"{endpoint.path}: {name}"
                assert "access-control-allow-origin" not in answer.headers

    walk(tmp_path, check)


def test_navigation_reaches_the_page_and_no_data(tmp_path: Path) -> None:
    navigation: Headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}

    async def check(web: WebApp, client: Client) -> None:
        for endpoint in web.endpoints:
            answer = await ask(client, endpoint, Probe("navigation", (), navigation))
            assert (answer.status in (200, 404)) == endpoint.is_page, endpoint.path

    walk(tmp_path, check)


def test_bodies_that_are_no_object_or_too_large_are_refused(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        for endpoint in web.endpoints:
            if endpoint.body is None:
                continue
            path = fill(endpoint)
            for body, status in (
                (b"{", 400),
                (b"", 400),
                (b"\xff\xfe", 400),
                (b'{"a": NaN}', 400),
                (b"[" * 100_000, 400),
                (b"[]", 422),
                (b'"x"', 422),
                (b"null", 422),
            ):
                answer = await client.ask(endpoint.method, path, body=body)
                assert answer.status == status, f"{path}: {body[:20]!r}"
                assert "error" in answer.json
            declared = await client.ask(endpoint.method, path, body=b"", headers={"content-length": "2000000"})
            assert declared.status == 413, path
            chunked = b"10000\r\n" + b" " * 65536 + b"\r\n"
            answer = await client.ask(
                endpoint.method,
                path,
                body=chunked * 32 + b"0\r\n\r\n",
                headers={"content-length": None, "transfer-encoding": "chunked"},
            )
            assert answer.status == 413, path

    walk(tmp_path, check)


@pytest.mark.parametrize(
    "body",
    [
        {"message": 5},
        {"message": "Hi", "model": "gpt"},
        {"message": "Hi", "run": "run-1"},
        {"message": "Hi", "run": "../../etc/passwd"},
        {"message": "Hi", "app": "nobody"},
        {"message": "  "},
        {"inputs": {"a": 1}},
        {"message": "Hi", "session": "s" * 300},
        {},
    ],
)
def test_wrong_field_is_a_sentence_and_never_an_error_of_the_server(body: dict[str, object], tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        answer = await client.ask("POST", "/api/runs", body)
        assert answer.status == 422
        assert answer.json["error"]

    walk(tmp_path, check)


def test_head_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        for endpoint in web.endpoints:
            probe = Probe("long head", (), {"x-long": "a" * 70_000})
            assert (await ask(client, endpoint, probe)).status == 431

    walk(tmp_path, check)


def test_body_that_trickles_is_given_up(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        for endpoint in web.endpoints:
            if endpoint.body is not None:
                answer = await client.ask(endpoint.method, fill(endpoint), body=b"{", headers={"content-length": "9"})
                assert answer.status == 408

    walk(tmp_path, check, body_s=0.1)


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: "])
def test_head_that_never_ends_closes_the_connection(
    start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BoundedProtocol", Hasty)

    async def check(web: WebApp, client: Client) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(start)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        with closing(writer):
            pass
        # A stream that is silent for longer than that stays open.
        async with client.open("GET", "/api/app", headers={"connection": "keep-alive"}) as (answer, _):
            assert answer.status == 200

    walk(tmp_path, check)


def test_websocket_is_never_opened(tmp_path: Path) -> None:
    async def check(web: WebApp, client: Client) -> None:
        upgrade: Headers = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for endpoint in web.endpoints:
            answer = await client.ask(
                "GET", fill(endpoint), headers={**upgrade, "authorization": None, "connection": "close, upgrade"}
            )
            assert answer.status in (401, 404, 405, 200)
            assert "upgrade" not in answer.headers

    walk(tmp_path, check)

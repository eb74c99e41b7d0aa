"""OAuth, tried for real: an authorization server, an MCP server behind it, and the package's providers over HTTP."""

import asyncio
import base64
import hashlib
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

import uvicorn
from httpx2 import AsyncClient, Auth
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from flowkit import Agent, Journal, MCPTools, ScriptedModel, mcp_app, recipe, step, tool
from flowkit.mcp_client.call_clocks import LOGIN_S, CallClocks, make_patient
from flowkit.mcp_client.token_files import FileTokens
from flowkit.models.scripted import call
from flowkit.testing.loop import run_virtual


@tool(effect="read")
def get_price(product: str) -> int:
    """Get a price."""
    return 9000


@recipe
def look_up(product: str) -> int:
    """The price of a product."""
    return step(get_price, product)


class Authority:
    """An authorization server of one user, which checks PKCE, and lets its tokens through to the MCP server."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.codes: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.grants: list[str] = []

    async def describe_resource(self, request: Request) -> Response:
        return JSONResponse({"resource": f"{self.base}/mcp", "authorization_servers": [self.base]})

    async def describe(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.base,
                "authorization_endpoint": f"{self.base}/authorize",
                "token_endpoint": f"{self.base}/token",
                "registration_endpoint": f"{self.base}/register",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            }
        )

    async def register(self, request: Request) -> Response:
        return JSONResponse({**await request.json(), "client_id": "c-1"}, 201)

    async def authorize(self, request: Request) -> Response:
        asked = request.query_params
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.codes[code] = asked["code_challenge"]
        return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}", 302)

    async def give_token(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        (grant,) = form["grant_type"]
        self.grants.append(grant)
        if grant == "authorization_code":
            digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if self.codes.pop(form["code"][0], None) != challenge:
                return JSONResponse({"error": "invalid_grant"}, 400)
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": 3600})


@asynccontextmanager
async def serve(folder: Path) -> AsyncGenerator[Authority]:
    """Both servers at one address of this machine."""
    with socket.socket() as listener, closing(Journal(folder / "journal.sqlite3")) as journal:
        listener.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        authority = Authority(base)
        shop: Any = mcp_app([look_up], get_user=lambda _: "ann", journal=journal)
        about = "/.well-known/oauth-protected-resource"
        for path in (about, f"{about}/mcp"):
            shop.router.routes.append(Route(path, authority.describe_resource))
        shop.router.routes.append(Route("/.well-known/oauth-authorization-server", authority.describe))
        shop.router.routes.append(Route("/register", authority.register, methods=["POST"]))
        shop.router.routes.append(Route("/authorize", authority.authorize))
        shop.router.routes.append(Route("/token", authority.give_token, methods=["POST"]))

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/mcp":
                sent = dict(scope["headers"]).get(b"authorization", b"").decode()
                if sent.removeprefix("Bearer ") not in authority.tokens:
                    challenge = f'Bearer resource_metadata="{base}{about}"'
                    await Response("", 401, {"www-authenticate": challenge})(scope, receive, send)
                    return
            await shop(scope, receive, send)

        server = uvicorn.Server(uvicorn.Config(guarded, log_level="error", timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield authority
        finally:
            server.should_exit = True
            await serving
            # A task of sse-starlette, one for a loop, looks now and then whether its server ends.
            for task in asyncio.all_tasks():
                if "_shutdown_watcher" in repr(task.get_coro()):
                    task.cancel()


async def use(url: str, auth: Any, **options: Any) -> Any:
    shop = MCPTools.http(url, name="shop", auth=auth, effects={"*": "read"}, **options)
    model = ScriptedModel([[call("shop_look_up", product="tea")], "done"])
    result = await Agent(model, tools=[shop.tools], cache=False).run("price?")
    assert "secret" not in repr(shop)
    return result.calls[0].value


def test_client_credentials_open_the_server(tmp_path: Path) -> None:
    from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

    async def go() -> None:
        async with serve(tmp_path) as authority:
            url = f"{authority.base}/mcp"
            provider = ClientCredentialsOAuthProvider(
                server_url=url,
                storage=FileTokens("shop", folder=tmp_path / "tokens"),
                client_id="me",
                client_secret="a-secret",
                issuer=authority.base,
            )
            assert await use(url, provider) == {"result": 9000}
            assert authority.grants == ["client_credentials"]

    asyncio.run(go())


class Person:
    """Logs in at the authority's page, some seconds after being asked."""

    def __init__(self, url: str, folder: Path, takes_s: float = 0.0) -> None:
        self.visited: list[str] = []
        self._url = url
        self._folder = folder
        self._takes_s = takes_s

    async def open_page(self, address: str) -> None:
        self.visited.append(address)

    async def wait_for_code(self) -> Any:
        from mcp.client.auth import AuthorizationCodeResult

        await asyncio.sleep(self._takes_s)
        async with AsyncClient() as browser:
            answer = await browser.get(self.visited[-1], follow_redirects=False)
        sent = parse_qs(urlsplit(answer.headers["location"]).query)
        return AuthorizationCodeResult(code=sent["code"][0], state=sent["state"][0])

    def make_provider(self) -> Any:
        from mcp.client.auth import OAuthClientProvider
        from mcp.shared.auth import OAuthClientMetadata

        return OAuthClientProvider(
            self._url,
            OAuthClientMetadata.model_validate({"redirect_uris": ["http://127.0.0.1:3030/callback"]}),
            FileTokens("shop", folder=self._folder),
            redirect_handler=self.open_page,
            callback_handler=self.wait_for_code,
        )


def test_a_person_logs_in_once_with_a_code_and_pkce(tmp_path: Path) -> None:
    async def go() -> None:
        async with serve(tmp_path) as authority:
            url = f"{authority.base}/mcp"
            person = Person(url, tmp_path / "tokens")
            assert await use(url, person.make_provider()) == {"result": 9000}
            assert await use(url, person.make_provider()) == {"result": 9000}
            # The second time its token was there already.
            assert (len(person.visited), authority.grants) == (1, ["authorization_code"])
            kept = list((tmp_path / "tokens").iterdir())
            assert len(kept) == 2
            assert all(path.stat().st_mode & 0o077 == 0 for path in kept)

    asyncio.run(go())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_time_in_which_a_person_logs_in_counts_against_no_bound(tmp_path: Path, mode: str) -> None:
    async def never(server: str, message: str, schema: object) -> None:
        raise AssertionError("nobody is asked by elicitation")

    async def go() -> None:
        async with serve(tmp_path) as authority:
            url = f"{authority.base}/mcp"
            person = Person(url, tmp_path / "tokens", takes_s=9.0)
            options = {"connect_timeout": 8.0, "timeout": 8.0, "mode": mode, "ask": never}
            assert await use(url, person.make_provider(), **options) == {"result": 9000}

    asyncio.run(go())


class SlowAuth(Auth):
    """Asks a person for a while, sends a request of its own, and then the request itself."""

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        await asyncio.sleep(1800)
        yield "a request for a token"
        await asyncio.sleep(1800)
        yield request


@pytest.mark.parametrize(("answers_after_s", "is_in_time"), [(10, True), (40, False)])
def test_what_a_login_waits_for_on_the_network_does_count(answers_after_s: float, is_in_time: bool) -> None:
    async def go() -> list[Any]:
        sent: list[Any] = []
        flow = make_patient(SlowAuth()).async_auth_flow("the request")
        async with CallClocks().limit(60), aclosing(flow):
            async for request in flow:
                sent.append(request)
                await asyncio.sleep(answers_after_s)
        return sent

    if is_in_time:
        assert run_virtual(go()) == ["a request for a token", "the request"]
    else:
        with pytest.raises(TimeoutError):
            run_virtual(go())


def test_a_login_that_never_ends_is_given_up() -> None:
    class StuckAuth(Auth):
        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            await asyncio.Event().wait()
            yield request

    async def go() -> float:
        with pytest.raises(TimeoutError):
            async with CallClocks().limit(30):
                await anext(make_patient(StuckAuth()).async_auth_flow("the request"))
        return asyncio.get_running_loop().time()

    assert run_virtual(go()) == pytest.approx(LOGIN_S, abs=1)

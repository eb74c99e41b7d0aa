"""Addresses of MCP servers that hold a key, in the path or behind `?`: no log, error, tool or name shows it."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from flowkit import ConfigurationError, MCPTools
from flowkit.mcp_client.entries import read_command
from flowkit.mcp_client.failures import show_address
from flowkit.models.scripted import call
from tests.test_mcp_http import make_app, serve
from tests.test_mcp_tools import ask

KEY = "a81Hk3bd9LqW0xyz"
QUERY = "q81Hk3bd9LqW0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://shop.example/mcp/s/{KEY}/mcp", "https://shop.example/mcp/s/…/mcp"),
        ("https://shop.example/0b2d3c1e-1f2a-4b6c-9d8e-7f6a5b4c3d2e", "https://shop.example/…"),
        (f"https://shop.example/sk-{KEY}?x=1", "https://shop.example/…"),
        (f"https://shop.example?key={KEY}", "https://shop.example"),
        (
            "https://shop.example/api/v2/customer-orders-2025/mcp",
            "https://shop.example/api/v2/customer-orders-2025/mcp",
        ),
        (f"https://u:{KEY}@shop.example/mcp#x", "https://shop.example/mcp"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_key(url: str, shown: str) -> None:
    assert show_address(url) == shown
    assert MCPTools.http(url, name="shop").where == shown


def test_a_server_is_not_called_after_a_key() -> None:
    assert read_command(f"https://mcp.shop.example/{KEY}/mcp").name == "shop"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_key_in_a_path_is_in_no_log_at_any_level(tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: Any) -> None:
    async def go() -> None:
        async with serve(make_app(tmp_path, path=f"/{KEY}/mcp")) as (_, port):
            address = f"http://127.0.0.1:{port}/{KEY}/mcp?token={QUERY}"
            shop = MCPTools.http(address, name="shop", mode=mode, trust_hints=True)
            result = await ask(shop, call("shop_get_price", product="tea"))
            assert result.calls[0].value == {"result": 3}

    with caplog.at_level(logging.DEBUG):
        asyncio.run(go())
    # The records of the server here, which tells of its own address, are not a client's.
    heard = [record for record in caplog.records if not record.name.startswith(("mcp.server", "sse_starlette"))]
    told = "\n".join(f"{record.name}: {record.getMessage()} {record.exc_text}" for record in heard)
    assert "POST" in told, "the requests are logged"
    assert KEY not in told
    assert QUERY not in told
    assert "Received session ID:" not in told


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_key_in_a_path_is_in_no_error(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: Any) -> Any:
        if status == 301:
            return RedirectResponse(f"https://elsewhere.example/{KEY}/mcp", 301)
        return PlainTextResponse("no", status)

    async def go() -> str:
        app = Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST", "DELETE"])])
        async with serve(app) as (_, port):
            shop = MCPTools.http(f"http://127.0.0.1:{port}/{KEY}/mcp", name="shop")
            with pytest.raises(ConfigurationError) as caught:
                await ask(shop, call("shop_get_price", product="tea"))
            return str(caught.value)

    with caplog.at_level(logging.DEBUG):
        said = asyncio.run(go())
    assert "/…/mcp" in said
    assert KEY not in said
    assert KEY not in "\n".join(record.getMessage() for record in caplog.records)

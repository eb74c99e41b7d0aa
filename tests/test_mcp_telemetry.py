"""What spans and logs say of MCP calls, and that no token of a header is in any of them."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowkit import Agent, ConfigurationError, Journal, MCPTools, ScriptedModel
from flowkit.mcp_client import connection as spans
from flowkit.models.scripted import call
from flowkit.telemetry import instrument, names
from tests.test_mcp_cases import serve as serve_raw
from tests.test_mcp_http import TOKEN, make_app, serve
from tests.test_mcp_tools import ask, make_tools, read_lines

SECRETS = (TOKEN, "s3cret-query", "s3cret-password", "s3cret-user")


@pytest.mark.slow
def test_a_calls_span_names_the_server_and_its_tool_and_no_other_span_does(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(tracer_provider=provider)

    async def go() -> None:
        async with make_tools(tmp_path) as tools:
            model = ScriptedModel([[call("small_echo", text="a")], "done"])
            with provider.get_tracer("theirs").start_as_current_span("theirs"):
                await Agent(model, tools=[tools.tools], name="a", cache=False).run("go")

    try:
        asyncio.run(go())
    finally:
        stop()
    spans_by_name = {span.name: span for span in exporter.get_finished_spans()}
    ours = dict(spans_by_name["execute_tool small_echo"].attributes or {})
    assert ours[spans.METHOD] == "tools/call"
    assert ours[spans.PROTOCOL_VERSION] == "2026-07-28"
    assert (ours[spans.TRANSPORT], ours[spans.SERVER_NAME], ours[spans.SERVER_TOOL]) == ("pipe", "small", "echo")
    assert ours[names.TOOL_NAME] == "small_echo"
    assert spans.METHOD not in (spans_by_name["theirs"].attributes or {})


def test_the_trace_reaches_the_server(tmp_path: Path) -> None:
    """The package puts it into a request when a span is current, as a call's is inside its tool."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(tracer_provider=provider)
    try:
        tools = serve_raw(tmp_path, {"name": "x", "inputSchema": {"type": "object"}})
        asyncio.run(ask(tools, call("x")))
    finally:
        stop()
    (told,) = [heard for heard in map(json.loads, read_lines(tmp_path, "heard")) if "traceparent" in heard]
    (ours,) = [span for span in exporter.get_finished_spans() if span.name == "execute_tool x"]
    assert ours.context is not None
    assert told["traceparent"].split("-")[1:3] == [f"{ours.context.trace_id:032x}", f"{ours.context.span_id:016x}"]


def test_a_span_that_is_not_flowkits_is_left_as_it_is() -> None:
    provider = TracerProvider()
    with provider.get_tracer("theirs").start_as_current_span("theirs"):
        assert spans.find_span() is None


@pytest.mark.parametrize("content", [True, False])
def test_a_token_in_a_header_is_in_no_span_log_event_error_or_journal(
    tmp_path: Path, content: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(tracer_provider=provider, content=content)
    told: list[str] = []

    async def use(url: str, token: str) -> None:
        shop = MCPTools.http(url, name="shop", headers={"Authorization": f"Bearer {token}"}, effects={"*": "read"})
        told.append(repr(shop) + shop.where + repr(vars(shop)))
        model = ScriptedModel([[call("shop_get_price", product="tea"), call("shop_no", product="tea")], "done"])
        agent = Agent(model, tools=[shop.tools], name="a", cache=False, journal=journal)
        run = agent.start("go")
        told.extend([str(event.to_json()) async for event in run])
        try:
            told.append(str(await run.wait()))
        except ConfigurationError as error:
            told.append(f"{error!r} {error.__cause__!r}")

    async def go() -> None:
        async with serve(make_app(tmp_path, token=TOKEN)) as (url, port):
            await use(f"{url}?key=s3cret-query", TOKEN)
            await use(url, "s3cret-user-of-another-server")
        await use(f"http://s3cret-user:s3cret-password@127.0.0.1:{port}/mcp?key=s3cret-query", TOKEN)

    journal = Journal(tmp_path / "client.sqlite3")
    try:
        with caplog.at_level(logging.DEBUG, "flowkit"), caplog.at_level(logging.INFO, "httpx2"):
            asyncio.run(go())
    finally:
        stop()
        journal.close()
    own = [span for span in exporter.get_finished_spans() if span.name.startswith(("execute_tool", "invoke_agent"))]
    assert {span.name for span in own} >= {"invoke_agent a", "execute_tool shop_get_price"}
    (called, *_) = [span for span in own if span.name == "execute_tool shop_get_price"]
    assert (called.attributes or {})[spans.SERVER_ADDRESS] == "127.0.0.1"
    heard = [record for record in caplog.records if record.name.startswith(("flowkit", "httpx2", "mcp.client"))]
    logged = [record.getMessage() + str(record.exc_text) for record in heard]
    # The HTTP package logs each request with its whole address, of which what may be a key is taken out.
    assert any(f"POST http://127.0.0.1:{(called.attributes or {})[spans.SERVER_PORT]}/mcp " in line for line in logged)
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("client.sqlite3*")).decode("latin-1")
    shown = "".join([*told, *logged, *(span.to_json() for span in exporter.get_finished_spans()), kept])
    assert "shop_get_price" in shown
    for secret in SECRETS:
        assert secret not in shown, secret

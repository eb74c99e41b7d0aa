"""Runs as spans: the tree, its parents and links, what is in it, and that nothing is done when nobody records."""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr

from flowkit import Agent, Executor, Image, Needs, ScriptedModel, Text, ToolCall, each, recipe, step, tool
from flowkit.errors import ModelError
from flowkit.events import EventLog
from flowkit.messages import Usage
from flowkit.models.scripted import call
from flowkit.observers import observe
from flowkit.telemetry import instrument, names
from flowkit.telemetry.content import LONGEST
from flowkit.telemetry.run_trace import RunTrace

EXPORTER = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))
TRACER = PROVIDER.get_tracer("tests")


@pytest.fixture(autouse=True)
def recording() -> Iterator[None]:
    EXPORTER.clear()
    stop = instrument(tracer_provider=PROVIDER)
    yield
    stop()


@tool(effect="read")
async def get_user(uid: str) -> str:
    """Get a user."""
    with TRACER.start_as_current_span("db"):
        await asyncio.sleep(0)
    return uid


@tool(effect="read")
def get_stock(item: str) -> str:
    """Look in the stock, in a thread."""
    with TRACER.start_as_current_span("stock db"):
        return item


@tool(effect="read")
async def get_order(order: str, user: str = Needs(get_user, uid="order")) -> str:
    """Get an order."""
    return order


@tool(effect="write")
async def pay(card: SecretStr) -> str:
    """Pay."""
    raise RuntimeError(f"gateway down {card.get_secret_value()}")


@recipe
def look_all(items: list[str]) -> list[str]:
    """Look at all."""
    return each(items, lambda item: step(get_stock, item))


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def spans() -> list[ReadableSpan]:
    return list(EXPORTER.get_finished_spans())


def find(name: str) -> list[ReadableSpan]:
    return [span for span in spans() if span.name == name]


def find_one(name: str) -> ReadableSpan:
    (span,) = find(name)
    return span


def draw(found: Sequence[ReadableSpan]) -> list[str]:
    """The tree as lines, siblings by their start."""
    lines: list[str] = []

    def show(parent: int | None, depth: int) -> None:
        below = [span for span in found if (span.parent.span_id if span.parent else None) == parent]
        for span in sorted(below, key=lambda span: (span.start_time or 0, span.name)):
            lines.append("  " * depth + span.name)
            show(context_of(span).span_id, depth + 1)

    show(None, 0)
    return lines


def make_shop() -> Agent:
    helper = Agent(ScriptedModel([[call("get_user", uid="h")], ["found"]]), tools=[get_user], name="finder")
    return Agent(
        ScriptedModel(
            [
                [
                    call("get_order", order="7"),
                    call("get_stock", item="a"),
                    call("get_stock", item="a"),
                    call("pay", card="s3cret-card"),
                    call("look_all", items=["b", "c"]),
                    call("helper", task="find"),
                    Usage(100, 20),
                ],
                ["done", Usage(50, 5)],
            ]
        ),
        tools=[get_order, get_stock, pay, look_all.as_tool(), helper.as_tool(name="helper", description="Help.")],
        name="shop",
        cache=False,
    )


def parent_of(span: ReadableSpan) -> str | None:
    by_id = {context_of(other).span_id: other.name for other in spans()}
    return None if span.parent is None else by_id.get(span.parent.span_id)


def links_of(span: ReadableSpan) -> set[tuple[str, str]]:
    by_id = {context_of(other).span_id: other.name for other in spans()}
    return {(by_id[link.context.span_id], str((link.attributes or {})[names.EDGE])) for link in span.links}


def test_the_tree_of_a_run() -> None:
    make_shop().run_sync("go")
    assert sorted(draw(spans())) == sorted(
        [
            "invoke_agent shop",
            "  chat scripted",
            "  execute_tool get_order",
            "  execute_tool get_user",
            "    db",
            "  execute_tool get_stock",
            "    stock db",
            "  execute_tool get_stock",
            "  execute_tool pay",
            "  execute_tool look_all",
            "    look_all",
            "      each",
            "        execute_tool get_stock",
            "          stock db",
            "        execute_tool get_stock",
            "          stock db",
            "  execute_tool helper",
            "    invoke_agent finder",
            "      chat scripted",
            "      execute_tool get_user",
            "        db",
            "      chat scripted",
            "  chat scripted",
        ]
    )
    assert len({context_of(span).trace_id for span in spans()}) == 1
    flight = next(span for span in find("execute_tool get_stock") if (span.attributes or {}).get(names.SOURCE))
    assert (flight.attributes or {})[names.SOURCE] == "flight"
    assert ("execute_tool get_stock", "flight") in links_of(flight)
    assert {("execute_tool get_user", "need"), ("chat scripted", "asked")} <= links_of(
        find_one("execute_tool get_order")
    )
    assert {span.kind for span in find("chat scripted")} == {SpanKind.CLIENT}


def test_spans_lie_inside_their_parents_and_end_after_they_begin() -> None:
    make_shop().run_sync("go")
    by_id = {context_of(span).span_id: span for span in spans()}
    for span in spans():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        if span.parent is not None:
            above = by_id[span.parent.span_id]
            assert above.start_time is not None
            assert above.start_time <= span.start_time


def test_only_a_failure_is_an_error_and_tells_its_class() -> None:
    make_shop().run_sync("go")
    failed = [span for span in spans() if span.status.status_code is StatusCode.ERROR]
    assert [span.name for span in failed] == ["execute_tool pay"]
    assert (failed[0].attributes or {})[names.ERROR_TYPE] in ("RuntimeError", "in_doubt", "failed")


def test_the_parent_is_what_was_current_when_the_run_began() -> None:
    async def main() -> None:
        with TRACER.start_as_current_span("GET /"):
            run = Agent(ScriptedModel([["hi"]]), name="a", cache=False).start("go")
        await run.wait()

    asyncio.run(main())
    assert draw(spans()) == ["GET /", "  invoke_agent a", "    chat scripted"]


def test_many_runs_at_once_keep_apart() -> None:
    async def one(number: int) -> None:
        with TRACER.start_as_current_span(f"request {number}"):
            model = ScriptedModel([[call("get_user", uid="1"), call("get_stock", item="1")], ["done"]])
            await Agent(model, tools=[get_user, get_stock], name="a", cache=False).run("go")

    async def main() -> None:
        await asyncio.gather(*map(one, range(100)))

    asyncio.run(main())
    traces: dict[int, list[str]] = {}
    for span in spans():
        traces.setdefault(context_of(span).trace_id, []).append(span.name.split(" ")[0])
    assert len(traces) == 100
    assert {tuple(sorted(found)) for found in traces.values()} == {
        tuple(sorted(["request", "invoke_agent", "chat", "chat", "execute_tool", "execute_tool", "db", "stock"]))
    }


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_what_a_tool_starts_hangs_below_it_async_and_in_threads(slots: int) -> None:
    async def main() -> None:
        async with Executor([get_user, get_stock], slots=slots) as graph:
            for number in range(32):
                graph.add(ToolCall(f"u{number}", "get_user", {"uid": str(number)}))
                graph.add(ToolCall(f"s{number}", "get_stock", {"item": str(number)}))
            await graph.wait(*(f"{kind}{number}" for kind in "us" for number in range(32)))
        assert otel_context.get_current() == otel_context.Context()

    asyncio.run(main())
    parents = [span.parent.span_id for span in find("db") + find("stock db") if span.parent is not None]
    assert len(set(parents)) == 64
    assert {parent_of(span) for span in find("db")} == {"execute_tool get_user"}
    assert {parent_of(span) for span in find("stock db")} == {"execute_tool get_stock"}


def test_every_span_of_a_run_that_is_cancelled_is_ended_once(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    @tool(effect="read")
    async def hang() -> str:
        """Hang."""
        begun.set()
        await asyncio.Event().wait()
        return ""

    async def main() -> None:
        run = Agent(ScriptedModel([[call("hang")]]), tools=[hang], name="a", cache=False).start("go")
        await begun.wait()
        run.cancel()
        await run.wait()

    asyncio.run(main())
    assert draw(spans()) == ["invoke_agent a", "  chat scripted", "  execute_tool hang"]
    assert all(span.end_time is not None for span in spans())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("content", [True, False])
def test_secrets_are_nowhere(content: bool, caplog: pytest.LogCaptureFixture) -> None:
    instrument(tracer_provider=PROVIDER, content=content)
    make_shop().run_sync("go")
    assert not any("s3cret-card" in span.to_json() for span in spans())
    assert "s3cret-card" not in caplog.text
    record = next(record for record in caplog.records if record.name == "flowkit.executor")
    assert record.__dict__["tool"] == "pay"


def test_content_is_there_only_when_it_is_asked_for() -> None:
    image = "data:image/png;base64," + "A" * 4000

    def run() -> str:
        EXPORTER.clear()
        model = ScriptedModel([["hi", call("get_user", uid="who-7")], ["the end " + "x" * 1_000_000]])
        agent = Agent(model, instructions="Be kind.", tools=[get_user], name="a", cache=False)
        agent.run_sync([Text("hello there"), Image(image)])
        return "".join(span.to_json() for span in spans())

    told = run()
    assert not any(word in told for word in ("hello there", "who-7", "Be kind", "the end"))
    instrument(tracer_provider=PROVIDER, content=True)
    told = run()
    assert all(word in told for word in ("hello there", "who-7", "Be kind", "the end", "image/png"))
    assert "AAAA" not in told
    values = [value for span in spans() for value in (span.attributes or {}).values()]
    assert max(len(value.encode()) for value in values if isinstance(value, str)) == LONGEST


def test_a_broken_answer_is_a_chat_of_its_own_and_usage_adds_up() -> None:
    broken = ModelError("overloaded", retryable=True, retry_after_s=0)
    agent = Agent(ScriptedModel([["he", broken], ["hello", Usage(10, 3)]]), name="a", cache=False)
    result = agent.run_sync("go")
    first, second = find("chat scripted")
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    counted = [int(str((span.attributes or {})[names.INPUT_TOKENS])) for span in (first, second)]
    assert sum(counted) == result.usage.input_tokens == 10


def test_nobody_listens_when_nobody_records() -> None:
    logs: list[EventLog] = []
    for provider in (TracerProvider(sampler=ALWAYS_OFF), trace.NoOpTracerProvider()):
        stop = instrument(tracer_provider=provider)
        stop_observing = observe(lambda log, around: logs.append(log))
        make_shop().run_sync("go")
        stop_observing()
        stop()
    assert {span.name for span in spans()} <= {"db", "stock db"}  # the tools' own
    assert len(logs) == 4
    assert not any(log.around for log in logs)


class NotTheShop(Sampler):
    """Drops every trace whose first span is the shop's."""

    def should_sample(
        self, parent_context: otel_context.Context | None, trace_id: int, name: str, *rest: Any, **more: Any
    ) -> SamplingResult:
        return SamplingResult(Decision.DROP if "shop" in name else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "not the shop"


def test_a_run_inside_one_that_is_not_sampled_begins_no_trace_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(NotTheShop()))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(tracer_provider=provider)
    make_shop().run_sync("go")
    assert exporter.get_finished_spans() == ()


def test_metrics_count_what_runs_do_and_name_no_run() -> None:
    reader = InMemoryMetricReader()
    instrument(tracer_provider=PROVIDER, meter_provider=MeterProvider([reader]))
    result = make_shop().run_sync("go", user="ann", session="s-1")
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: metric
        for part in data.resource_metrics
        for scope in part.scope_metrics
        for metric in scope.metrics
    }
    tokens = sum(point.value for point in found[names.INFERENCE_INPUT].data.data_points)  # type: ignore[union-attr]
    assert tokens == result.usage.input_tokens
    assert sum(point.value for point in found[names.RUNS_ACTIVE].data.data_points) == 0  # type: ignore[union-attr]
    labels = {
        str(value)
        for metric in found.values()
        for point in metric.data.data_points
        for value in (point.attributes or {}).values()
    }
    assert not any(result.run_id in label or label in ("ann", "s-1") for label in labels)


def test_the_user_is_named_only_when_asked_for() -> None:
    Agent(ScriptedModel([["hi"]]), name="a", cache=False).run_sync("go", user="ann")
    assert names.USER not in (find_one("invoke_agent a").attributes or {})
    EXPORTER.clear()
    instrument(tracer_provider=PROVIDER, user=True)
    Agent(ScriptedModel([["hi"]]), name="a", cache=False).run_sync("go", user="ann")
    assert (find_one("invoke_agent a").attributes or {})[names.USER] == "ann"


def test_a_wait_is_not_in_a_span_but_beside_it() -> None:
    make_shop().run_sync("go")
    order = find_one("execute_tool get_order")
    assert float(str((order.attributes or {})[names.WAITED["calls"]])) >= 0
    user = find("execute_tool get_user")[0]
    assert (order.start_time or 0) >= (user.end_time or time.time_ns())


def test_who_takes_an_event_has_its_values_and_their_defaults() -> None:
    run = RunTrace(
        EventLog("r", lambda: 0.0),
        TRACER,
        None,
        otel_context.Context(),
        0,
        content=False,
        user=False,
        on_end=lambda: None,
    )
    for kind, take in run.list_takers().items():
        taken = list(signature(take).parameters.values())
        own = fields(kind)[3:]
        assert [parameter.name for parameter in taken] == ["t", *(field.name for field in own)], kind
        defaults = [Parameter.empty if field.default is MISSING else field.default for field in own]
        assert [parameter.default for parameter in taken[1:]] == defaults, kind

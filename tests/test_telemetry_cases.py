"""Spans where a run isn't plain: whose parent they have, waits, crashes, models that fail, exporters that do.

| case | test |
|---|---|
| N1, N2, N5 | test_observers.py |
| N3 | test_observers.py, `test_a_run_tells_the_time_of_the_wall_…`; `test_in_virtual_time_…` |
| N4 | test_observers.py, `…_a_start_its_effect`, `test_an_event_names_the_calls_that_are_waited_for_…`; the rest `test_spans_and_metrics_say_…` |
| N6 | test_agent_tools.py, `test_turns_of_a_nested_agent_…`; test_telemetry.py, `test_the_tree_of_a_run` |
| T1, T16 | test_telemetry.py, `test_the_tree_of_a_run`; test_telemetry_shop.py, the golden tree and the viewer |
| T2 | `test_a_run_hangs_below_…`, `test_a_run_of_a_task_…`; test_telemetry.py, `test_the_parent_is_…` |
| T3 | `test_a_watcher_that_leaves_…`, `test_a_limit_…`, `test_what_a_journal_…`; test_telemetry.py, `…is_cancelled_…` |
| T4 to T6 | test_telemetry.py, `test_many_runs_…`, `test_what_a_tool_starts_…`, `test_the_tree_of_a_run` |
| T7 | `test_an_hour_of_waiting_…`, `test_a_run_that_waits_…` |
| T8 | `test_what_a_journal_gives_…` |
| T9, T10 | `test_a_fallback_…`; test_telemetry.py, `test_a_broken_answer_…` |
| T11, T17 | test_telemetry.py, `test_secrets_…`; `test_the_key_of_a_model_…`; test_mcp_telemetry.py, `test_a_token_…` |
| T12 | `test_messages_of_every_kind_…`; test_telemetry.py, `test_content_…` |
| T13 | `test_only_what_failed_…`, `test_a_call_that_the_answer_broke_off_…` |
| T14 | `test_in_virtual_time_…`; test_telemetry.py, `test_spans_lie_…` |
| T15 | `test_a_run_is_as_it_was_…`, `test_without_an_sdk_…`; test_telemetry.py, `test_nobody_listens_…` |
| T18 | `test_the_names_…`, `test_spans_and_metrics_say_…` |
| logging | test_logging.py |
"""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flowkit import (
    Agent,
    Approve,
    Deny,
    Executor,
    FallbackModel,
    File,
    Image,
    InDoubt,
    Limits,
    OpenAIModel,
    Price,
    Reference,
    ScriptedModel,
    Text,
    ToolCall,
    tool,
)
from flowkit.errors import ModelError
from flowkit.mcp_client import connection as spans
from flowkit.messages import Usage
from flowkit.models.scripted import call
from flowkit.telemetry import instrument, names
from flowkit.testing.loop import VirtualLoop

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
async def look(item: str) -> str:
    """Look."""
    await asyncio.sleep(0.5)
    return item


@tool(effect="write", approval=True)
async def order(item: str) -> str:
    """Order."""
    return f"ordered {item}"


def make_agent(*turns: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel([*turns]), name="a", tools=[look, order], cache=False, **options)


def find(name: str) -> list[ReadableSpan]:
    return [span for span in EXPORTER.get_finished_spans() if span.name == name]


def find_one(name: str) -> ReadableSpan:
    (span,) = find(name)
    return span


def get(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


# Whose parent


def test_a_run_hangs_below_what_its_request_said_and_else_below_nothing() -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

    async def serve() -> None:
        with TRACER.start_as_current_span("POST /", context=extract(headers)):
            await make_agent(["hi"]).run("go")

    asyncio.run(serve())
    below = find_one("invoke_agent a")
    assert trace_of(below) == 0x0AF7651916CD43DD8448EB211C80319C
    assert below.parent is not None
    assert below.parent.span_id == find_one("POST /").get_span_context().span_id  # type: ignore[union-attr]
    EXPORTER.clear()
    make_agent(["hi"]).run_sync("go")
    assert find_one("invoke_agent a").parent is None


@pytest.mark.parametrize("way", ["task", "run_sync"])
def test_a_run_of_a_task_or_of_run_sync_hangs_below_what_is_current(way: str) -> None:
    async def main() -> None:
        with TRACER.start_as_current_span("work"):
            task = asyncio.create_task(make_agent(["hi"]).run("go"))
        await task

    if way == "task":
        asyncio.run(main())
    else:
        with TRACER.start_as_current_span("work"):
            make_agent(["hi"]).run_sync("go")
    parent = find_one("invoke_agent a").parent
    assert parent is not None
    assert parent.span_id == find_one("work").get_span_context().span_id  # type: ignore[union-attr]


# Runs that don't end well


def test_a_watcher_that_leaves_ends_no_span_early(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        run = make_agent([call("look", item="x")], ["done"]).start("go")
        async for _ in run:
            break
        await run.wait()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert [get(span, names.STATE) for span in find("execute_tool look")] == ["finished"]
    assert len(EXPORTER.get_finished_spans()) == 4
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_limit_ends_every_span_and_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(make_agent([call("look", item="x")], ["done"], limits=Limits(seconds=0.1)).run("go"))
    assert result.status == "limit"
    run, tool_span = find_one("invoke_agent a"), find_one("execute_tool look")
    assert (get(run, names.STATE), run.status.status_code) == ("limit", StatusCode.ERROR)
    assert (get(tool_span, names.STATE), tool_span.status.status_code) == ("cancelled", StatusCode.UNSET)
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


CRASH = """
import os, sys
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from flowkit import Agent, Journal, ScriptedModel, tool
from flowkit.models.scripted import call
from flowkit.telemetry import instrument

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda s: f"{s.name}|{dict(s.attributes)}\\n")))
instrument(tracer_provider=provider)

@tool(effect="write")
def order(item: str) -> str:
    "Order."
    return item

def answer(request):
    if request.turn == 2 and sys.argv[2] == "first":
        os._exit(9)
    return [call("order", item="x")] if request.turn == 1 else "done"

journal = Journal(Path(sys.argv[1]) / "runs.db")
agent = Agent(ScriptedModel(answer), name="a", tools=[order], cache=False, journal=journal)
agent.run_sync("go" if sys.argv[2] == "first" else None, run_id="r1")
journal.close()
"""


@pytest.mark.slow
def test_what_a_journal_gives_after_a_crash_is_a_short_span_from_there_and_no_error(tmp_path: Path) -> None:
    def run(which: str) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", CRASH, str(tmp_path), which]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return ended.returncode, ended.stdout.splitlines()

    code, lines = run("first")
    assert code == 9
    assert [line.split("|")[0] for line in lines] == ["chat scripted", "execute_tool order"]
    code, lines = run("second")
    assert code == 0
    (replayed,) = [line for line in lines if line.startswith("execute_tool order|")]
    assert f"'{names.SOURCE}': 'journal'" in replayed
    assert f"'{names.STATE}': 'finished'" in replayed
    assert names.ERROR_TYPE not in replayed
    assert len([line for line in lines if line.startswith("chat scripted|")]) == 1


# Waits and decisions


def test_an_hour_of_waiting_for_a_person_is_beside_the_span_and_not_in_it() -> None:
    reader = InMemoryMetricReader()
    instrument(tracer_provider=PROVIDER, meter_provider=MeterProvider([reader]))

    async def main() -> None:
        async with Executor([order]) as graph:
            graph.add(ToolCall("o", "order", {"item": "x"}))
            await graph.wait("o")
            await asyncio.sleep(3600)
            graph.decide("o", Approve(by="kim"))
            await graph.wait("o")

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    span = find_one("execute_tool order")
    assert get(span, names.WAITED["approval"]) == pytest.approx(3600, abs=1)
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 < 1
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    (waited,) = metrics[names.APPROVALS_WAIT].data.data_points
    assert waited.sum == pytest.approx(3600, abs=1)  # type: ignore[union-attr]


def test_a_run_that_waits_for_a_person_and_goes_on_is_two_whole_traces() -> None:
    agent = make_agent([call("order", item="x")], ["done"])
    first = agent.run_sync("go")
    assert first.status == "waiting"
    decisions: dict[str, Approve | Deny] = {pending.id: Approve() for pending in first.pending}
    assert agent.run_sync(history=first.messages, decisions=decisions).status == "done"
    runs = find("invoke_agent a")
    assert [get(run, names.STATE) for run in runs] == ["waiting", "done"]
    assert {run.status.status_code for run in runs} == {StatusCode.UNSET}
    assert len({trace_of(run) for run in runs}) == 2
    assert {trace_of(span) for span in EXPORTER.get_finished_spans()} == {trace_of(run) for run in runs}
    assert "finished" in [get(span, names.STATE) for span in find("execute_tool order")]


def test_only_what_failed_or_is_in_doubt_is_an_error() -> None:
    @tool(effect="write")
    async def doubtful() -> str:
        """Pay."""
        raise InDoubt("the gateway hung up")

    @tool(effect="read")
    async def broken() -> str:
        """Break."""
        raise ValueError("no")

    async def main() -> None:
        async with Executor([doubtful, broken, look, order]) as graph:
            graph.add(ToolCall("doubt", "doubtful", {}))
            graph.add(ToolCall("fail", "broken", {}))
            graph.add(ToolCall("skip", "look", {"item": Reference("fail")}))
            graph.add(ToolCall("deny", "order", {"item": "x"}))
            await graph.wait("doubt", "fail", "skip")
            graph.decide("deny", Deny("no"))
            await graph.wait("deny")

    asyncio.run(main())
    found = {
        get(span, names.CALL_ID): (get(span, names.STATE), span.status.status_code.name, get(span, names.ERROR_TYPE))
        for span in EXPORTER.get_finished_spans()
        if get(span, names.CALL_ID)
    }
    assert found == {
        "doubt": ("in_doubt", "ERROR", "in_doubt"),
        "fail": ("failed", "ERROR", "ValueError"),
        "skip": ("skipped", "UNSET", None),
        "deny": ("denied", "UNSET", None),
    }


def test_a_call_that_the_answer_broke_off_in_has_no_span() -> None:
    broken = ModelError("gone", retryable=True, retry_after_s=0)
    half = call("look", item="x").slowly(0.4)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(make_agent([half, broken], ["done"]).run("go"))
    states = [get(span, names.STATE) for span in find("execute_tool look")]
    assert states in ([], ["void"])
    assert all(span.status.status_code is StatusCode.UNSET for span in find("execute_tool look"))


# Models


def test_a_fallback_is_two_chats_and_its_usage_counts_once() -> None:
    busy = ModelError("overloaded", retryable=True, retry_after_s=0)
    first = ScriptedModel([["he", busy]], name="first", price=Price(input=1.0, output=1.0))
    second = ScriptedModel([["hello", Usage(10, 3)]], name="second", price=Price(input=1.0, output=2.0))
    result = Agent(FallbackModel(first, second), name="a", cache=False).run_sync("go")
    chats = [span for span in EXPORTER.get_finished_spans() if span.name.startswith("chat ")]
    assert [span.status.status_code.name for span in chats] == ["ERROR", "UNSET"]
    assert [get(span, names.RESPONSE_MODEL) for span in chats] == ["first", "second"]
    assert sum(get(span, names.INPUT_TOKENS) or 0 for span in chats) == result.usage.input_tokens == 10
    costs = [get(span, names.COST_USD) or 0.0 for span in chats]
    assert sum(costs) == pytest.approx(result.cost_usd)


# Content and secrets


def test_messages_of_every_kind_are_shown_and_never_their_bytes() -> None:
    instrument(tracer_provider=PROVIDER, content=True)
    data = "A" * 4000
    said = [
        Text("what is this?"),
        Image(f"data:image/png;base64,{data}"),
        File("bill.pdf", f"data:application/pdf;base64,{data}"),
    ]
    make_agent(["see", call("look", item="x")], ["it is x"], instructions="Be kind.").run_sync(said)
    last = str(get(find("chat scripted")[-1], names.INPUT_MESSAGES))
    assert all(f'"role":"{role}"' in last for role in ("user", "assistant", "tool"))
    assert all(word in last for word in ("what is this?", "image/png", "application/pdf", "tool_call", "look"))
    assert get(find("chat scripted")[0], names.SYSTEM_INSTRUCTIONS) is not None
    assert "look" in str(get(find("chat scripted")[0], names.TOOL_DEFINITIONS))
    assert "AAAA" not in "".join(span.to_json() for span in EXPORTER.get_finished_spans())


@pytest.mark.parametrize("content", [True, False])
def test_the_key_of_a_model_and_the_one_in_its_address_are_nowhere(
    content: bool, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(tracer_provider=PROVIDER, content=content)

    model = OpenAIModel(
        "m",
        base_url="http://user:s3cret-pass@127.0.0.1:9/v1?key=s3cret-query",
        api_key="s3cret-key",
        max_retries=0,
    )
    with caplog.at_level(logging.DEBUG, "flowkit"), pytest.raises(ModelError):
        Agent(model, name="a", cache=False, attempts=1).run_sync("go").output  # noqa: B018
    told = "".join(span.to_json() for span in EXPORTER.get_finished_spans())
    assert "chat m" in told
    own = "".join(record.getMessage() for record in caplog.records if record.name.startswith("flowkit"))
    assert "s3cret" not in told + own


# Clocks and exporters


def test_in_virtual_time_each_span_lies_in_its_parent_and_is_as_long_as_its_work() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(make_agent([0.25, call("look", item="x"), 0.25], ["done"]).run("go"))
    by_id = {span.get_span_context().span_id: span for span in EXPORTER.get_finished_spans()}  # type: ignore[union-attr]
    for span in by_id.values():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        above = None if span.parent is None else by_id[span.parent.span_id]
        assert above is None or (above.start_time or 0) <= span.start_time
    looked = find_one("execute_tool look")
    assert ((looked.end_time or 0) - (looked.start_time or 0)) / 1e9 == pytest.approx(0.5, abs=0.01)
    assert ((looked.start_time or 0) - (find("chat scripted")[0].start_time or 0)) / 1e9 == pytest.approx(
        0.25, abs=0.01
    )


class Broken(SpanExporter):
    """Raises whatever it is given."""

    def export(self, spans: Sequence[ReadableSpan]) -> NoReturn:
        raise OSError("no collector")


def test_a_run_is_as_it_was_where_nobody_exports_or_the_exporter_raises() -> None:
    raising = TracerProvider()
    raising.add_span_processor(BatchSpanProcessor(Broken()))
    for provider in (TracerProvider(), raising, trace.ProxyTracerProvider()):
        stop = instrument(tracer_provider=provider)
        result = make_agent([call("look", item="x")], ["done"]).run_sync("go")
        stop()
        assert result.output == "done"
    raising.shutdown()


class Faulty(SpanProcessor):
    """Raises when a span begins or ends whose name has this beginning."""

    def __init__(self, moment: str, beginning: str) -> None:
        self._moment = moment
        self._beginning = beginning

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self._look("start", span)

    def on_end(self, span: Any) -> None:
        self._look("end", span)

    def _look(self, moment: str, span: Any) -> None:
        if moment == self._moment and span.name.startswith(self._beginning):
            raise RuntimeError("a fault of the processor")


@pytest.mark.parametrize("moment", ["start", "end"])
@pytest.mark.parametrize("beginning", ["invoke_agent", "chat", "execute_tool"])
def test_a_processor_that_raises_breaks_no_run(moment: str, beginning: str, caplog: pytest.LogCaptureFixture) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Faulty(moment, beginning))
    stop = instrument(tracer_provider=provider)
    try:
        result = asyncio.run(make_agent([call("look", item="x")], "done").run("go"))
    finally:
        stop()
    assert (result.status, result.calls[0].value) == ("done", "x")
    assert "a fault of the processor" in caplog.text


@pytest.mark.slow
def test_without_an_sdk_a_run_is_as_it_was(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["opentelemetry.sdk"] = None
import flowkit
from flowkit import Agent, ScriptedModel
assert "flowkit.telemetry" in sys.modules
print(Agent(ScriptedModel(["hi"]), cache=False).run_sync("go").output)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"FLOWKIT_OTEL": "1", "HOME": str(tmp_path), "PATH": ""},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hi\n", "")


# Names

CONVENTIONS = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
OF_CONVENTIONS = [
    "gen_ai.agent.name",
    "gen_ai.conversation.id",
    "gen_ai.input.messages",
    "gen_ai.operation.name",
    "gen_ai.output.messages",
    "gen_ai.provider.name",
    "gen_ai.request.max_tokens",
    "gen_ai.request.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.model",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.id",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.tool.name",
    "gen_ai.tool.type",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.workflow.name",
    "error.type",
    "enduser.id",
    "gen_ai.invoke_agent.duration",
    "gen_ai.invoke_agent.inference_calls",
    "gen_ai.invoke_agent.tool_calls",
    "gen_ai.invoke_workflow.duration",
    "gen_ai.execute_tool.duration",
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.output_tokens",
    "mcp.method.name",
    "mcp.protocol.version",
    "network.transport",
    "server.address",
    "server.port",
]
OWN = [
    "flowkit.age_s",
    "flowkit.approvals.wait",
    "flowkit.attempt",
    "flowkit.cache.lookups",
    "flowkit.cost",
    "flowkit.cost_usd",
    "flowkit.early",
    "flowkit.edge",
    "flowkit.effect",
    "flowkit.mcp.server",
    "flowkit.mcp.tool",
    "flowkit.node.id",
    "flowkit.repaired",
    "flowkit.result",
    "flowkit.run.id",
    "flowkit.runs.active",
    "flowkit.source",
    "flowkit.state",
    "flowkit.turn",
    "flowkit.waited.approval_s",
    "flowkit.waited.calls_s",
    "flowkit.waited.resource_s",
    "flowkit.waited.slot_s",
]


def test_the_names_are_those_of_one_version_of_the_conventions() -> None:
    given = [value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)]
    given += [value for name, value in vars(spans).items() if name.isupper() and isinstance(value, str)]
    table = {value for value in [*given, *names.WAITED.values()] if "." in value and "://" not in value}
    assert names.SCHEMA_URL == CONVENTIONS
    assert table == {*OF_CONVENTIONS, *OWN}


def test_spans_and_metrics_say_which_conventions_they_follow_and_use_no_other_name(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    instrument(tracer_provider=PROVIDER, meter_provider=MeterProvider([reader]), content=True, user=True)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(make_agent([call("look", item="x"), Usage(5, 5)], ["done"]).run("go", user="ann", session="s"))
    for span in EXPORTER.get_finished_spans():
        assert span.instrumentation_scope is not None
        assert (span.instrumentation_scope.name, span.instrumentation_scope.schema_url) == ("flowkit", CONVENTIONS)
        assert set(span.attributes or {}) <= {*OF_CONVENTIONS, *OWN}
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.schema_url == CONVENTIONS
    assert {metric.name for metric in scope.metrics} <= {*OF_CONVENTIONS, *OWN}

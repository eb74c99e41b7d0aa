"""The shop's run as a trace: its tree against a golden file, its figures, and the tree that a real viewer shows."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowkit.telemetry import instrument
from tests.extra_packages import NEEDS_ALL
from tests.servers.processes import find_free_port
from tests.traced_shop import draw_tree, run_shop

GOLDEN = Path(__file__).parent / "data" / "shop_trace.txt"
SPANS = len(GOLDEN.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("round_number", range(3))
def test_the_tree_of_the_shop_is_the_golden_one(tmp_path: Path, round_number: int) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(tracer_provider=provider)
    try:
        run_shop(tmp_path)
    finally:
        stop()
    assert draw_tree(exporter.get_finished_spans()) == GOLDEN.read_text(encoding="utf-8")


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[str]:
    """The address of a viewer of traces: `arize-phoenix`, from an environment of its own, since it brings a lot."""
    program = os.environ.get("FLOWKIT_PHOENIX") or shutil.which("phoenix")
    if program is None:
        pytest.skip("arize-phoenix isn't there: install it anywhere, and set FLOWKIT_PHOENIX to its program 'phoenix'")
    port = find_free_port()
    settings = {
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(find_free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    output = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen([program, "serve"], env=os.environ | settings, stdout=output[0], stderr=output[1]) as server:
        try:
            assert server.stdout is not None
            assert any(b"Uvicorn running" in line for line in server.stdout), "it ended"
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def ask(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)["data"]


@pytest.mark.slow
def test_a_viewer_shows_the_tree_and_what_each_span_is(phoenix: str, tmp_path: Path) -> None:
    otlp = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason=NEEDS_ALL)
    provider = TracerProvider(resource=Resource({"openinference.project.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(otlp.OTLPSpanExporter(f"{phoenix}/v1/traces")))
    stop = instrument(tracer_provider=provider, content=True)
    try:
        result = run_shop(tmp_path)
    finally:
        stop()
        provider.shutdown()

    projects: list[str] = []
    found: list[dict[str, Any]] = []
    for _ in range(1000):  # it answers before it has written what it was sent
        projects = [project["name"] for project in ask(f"{phoenix}/v1/projects")]
        found = ask(f"{phoenix}/v1/projects/shop/spans?limit=100") if "shop" in projects else []
        if len(found) == SPANS:
            break
    by_id = {span["context"]["span_id"]: span for span in found}
    tree = sorted(
        (span["name"], span["span_kind"], by_id[span["parent_id"]]["name"] if span["parent_id"] else "")
        for span in found
    )
    run = "invoke_agent shop"
    assert tree == [
        *[("chat large", "LLM", run)] * 3,
        *[("chat small", "LLM", "invoke_agent finder")] * 2,
        ("each", "UNKNOWN", "look_all"),
        ("execute_tool get_order", "TOOL", run),
        *[("execute_tool get_stock", "TOOL", "each")] * 2,
        *[("execute_tool get_stock", "TOOL", run)] * 3,
        ("execute_tool get_user", "TOOL", "invoke_agent finder"),
        ("execute_tool get_user", "TOOL", run),
        ("execute_tool helper", "TOOL", run),
        ("execute_tool look_all", "TOOL", run),
        ("execute_tool pay", "TOOL", run),
        ("invoke_agent finder", "AGENT", "execute_tool helper"),
        ("invoke_agent shop", "AGENT", ""),
        ("look_all", "UNKNOWN", "execute_tool look_all"),
    ]
    assert [span["name"] for span in found if span["status_code"] == "ERROR"] == ["execute_tool pay"]
    tokens = [span["attributes"].get("llm.token_count.prompt", 0) for span in found if span["name"] == "chat large"]
    nested = [span["attributes"].get("llm.token_count.prompt", 0) for span in found if span["name"] == "chat small"]
    assert sum(tokens) + sum(nested) == result.usage.input_tokens
    assert "s3cret-card" not in json.dumps(found)

"""Runs of the journal as cases to measure models by."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.exports.recorded_run import RecordedRun
from flowkit.recipes.yaml_text import to_yaml_text
from flowkit.tools import Tool

_HEAD = "# yaml-language-server: $schema=cases.schema.json\n"


def write_cases(runs: Sequence[RecordedRun], tools: dict[str, Tool[..., Any]] | None = None) -> str:
    """Write a file of cases: each run's user messages, its calls, and the results of its writes.

    `tools` tell which calls were writes; where they aren't known, every call's result is kept. What the answer has to
    be is left to a person: the answer that was given stands in a comment.
    """
    return _HEAD + "cases:\n" + "".join(_write_case(run, tools) for run in runs)


def _write_case(run: RecordedRun, tools: dict[str, Tool[..., Any]] | None) -> str:
    lines = to_yaml_text([dict(_make_case(run, tools))]).splitlines()
    answered = " ".join(str(run.output).split())
    comment = f"# it answered: {answered[:200]}" if run.status == "done" else f"# it ended: {run.status}"
    return "".join(f"  {line}\n" for line in (*lines, f"  {comment}"))


def _make_case(run: RecordedRun, tools: dict[str, Tool[..., Any]] | None) -> Iterator[tuple[str, JSON]]:
    content = run.message.content
    if not run.text:
        yield "name", run.run_id
    # Images, sounds and files stand in the case with their content.
    yield "message", content if isinstance(content, str) else [part.to_json() for part in content]
    if run.user is not None:
        yield "user", run.user
    if run.history:
        yield "history", [cast(JSON, message.to_json()) for message in run.history]
    yield "calls", [{"tool": call.tool, "arguments": dict(call.arguments)} for call in run.calls]
    results: dict[str, JSON] = {}
    for call in run.calls:
        tool = None if tools is None else tools.get(call.tool)
        is_write = tool is None or tool.effect != "read" or bool(tool.approval)
        if is_write and call.error is None:
            results.setdefault(call.tool, call.value)
    if results:
        yield "results", results

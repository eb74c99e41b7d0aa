"""A pytest file that replays a recorded run and asserts its calls and its answer.

The other way to keep runs of the journal is a file of cases to measure models by.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.exports.recorded_run import RecordedRecipe, RecordedRun
from flowkit.exports.replaying import Replay
from flowkit.recipes.format import to_yaml_text
from flowkit.tools import Tool

_TEMPLATE = '''"""Replays a run of {name_of_it} without a network: {claim}

Written by `flowkit runs export {run} --test`. The recording beside this file has {recorded}
"""

from pathlib import Path

from flowkit.testing import replay_run

HERE = Path(__file__).parent


def test_{name}() -> None:
    replay = replay_run(HERE / {recording!r}, HERE / {app!r}{tools})

    assert replay.calls == {calls}
    assert replay.status == {status!r}
    assert replay.output == {output}
'''

_OF_AGENT = (
    "the same answers of its model lead to the same calls and output.",
    "what the model and the tools said;\nno tool runs. What is compared is the conversation, so that instructions and "
    "descriptions may change.",
)
_OF_RECIPE = (
    "the same results of its steps lead to the same calls and output.",
    "what each step gave;\nno tool runs and no model is asked.",
)


def name_test(run: RecordedRun | RecordedRecipe, hide: Sequence[str] = ()) -> str:
    """Name the test of a run after the user's message, or a recipe's name and inputs, without hidden texts.

    >>> _slug("Where is my order, ORD-1002?")
    'where_is_my_order_ord_1002'
    """
    text = run.text
    for secret in hide:
        text = text.replace(secret, " ")
    return _slug(text) or _slug(run.run_id) or "run"


def write_test(
    run: RecordedRun | RecordedRecipe,
    replay: Replay,
    app: Path,
    test: Path,
    recording: Path,
    tools: Path | None = None,
    hide: Sequence[str] = (),
) -> str:
    """Write the file `test`, for an app, its tools and a recording at these places."""
    claim, recorded = _OF_AGENT if isinstance(run, RecordedRun) else _OF_RECIPE
    return _TEMPLATE.format(
        name_of_it=run.agent if isinstance(run, RecordedRun) else run.recipe,
        claim=claim,
        recorded=recorded,
        run=run.run_id,
        name=name_test(run, hide),
        recording=recording.name,
        app=_write_place(app, test),
        tools="" if tools is None else f", tools=HERE / {_write_place(tools, test)!r}",
        calls=_write_value(replay.calls),
        status=replay.status,
        output=_write_value(replay.output),
    )


def find_hidden(texts: Sequence[str], hidden: Sequence[str]) -> str | None:
    """Find the first text that should be hidden but is in one of these files."""
    return next(
        (secret for secret in hidden for text in texts if secret in text or json.dumps(secret)[1:-1] in text), None
    )


def _write_place(path: Path, test: Path) -> str:
    """Write a path as it is seen from the test's folder."""
    return Path(os.path.relpath(path.resolve(), test.resolve().parent)).as_posix()


def _write_value(value: object) -> str:
    """Write a value in Python, its further lines in the place where they stand in the test."""
    return pformat(value, width=100, sort_dicts=False).replace("\n", "\n    ")


def _slug(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.casefold())
    return "_".join(words)[:60].strip("_")


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

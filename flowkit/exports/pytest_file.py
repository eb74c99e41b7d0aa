"""A pytest file that replays a recorded run and asserts its calls and its answer."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat

from flowkit.exports.recorded_recipe import RecordedRecipe
from flowkit.exports.recorded_run import RecordedRun
from flowkit.exports.replaying import Replay

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
    """Name the test of a run, after the user's message or a recipe's name and inputs, without what is hidden.

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
    """Find the first text that had to be hidden and stands in one of these files all the same."""
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

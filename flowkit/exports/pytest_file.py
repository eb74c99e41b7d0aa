"""A pytest file that replays a recorded run and asserts its calls and its answer."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat

from flowkit.exports.recorded_run import RecordedRun
from flowkit.exports.replaying import Replay

_TEMPLATE = '''"""Replays a run of {agent} without a network: the same answers of its model lead to the same calls and output.

Written by `flowkit runs export {run} --test`. The recording beside this file has what the model and the tools said;
no tool runs. What is compared is the conversation, so that instructions and descriptions may change.
"""

from pathlib import Path

from flowkit.testing import replay_run

HERE = Path(__file__).parent


def test_{name}() -> None:
    replay = replay_run(HERE / {recording!r}, HERE / {app!r})

    assert replay.calls == {calls}
    assert replay.status == {status!r}
    assert replay.output == {output}
'''


def name_test(run: RecordedRun) -> str:
    """Name the test of a run, after the user's message.

    >>> _slug("Where is my order, ORD-1002?")
    'where_is_my_order_ord_1002'
    """
    return _slug(run.text) or _slug(run.run_id) or "run"


def write_test(run: RecordedRun, replay: Replay, app: Path, test: Path, recording: Path) -> str:
    """Write the file `test`, for an app and a recording at these places."""
    return _TEMPLATE.format(
        agent=run.agent,
        run=run.run_id,
        name=name_test(run),
        recording=recording.name,
        app=Path(os.path.relpath(app.resolve(), test.resolve().parent)).as_posix(),
        calls=_write_value(replay.calls),
        status=replay.status,
        output=_write_value(replay.output),
    )


def find_hidden(texts: Sequence[str], hidden: Sequence[str]) -> str | None:
    """Find the first text that had to be hidden and stands in one of these files all the same."""
    return next(
        (secret for secret in hidden for text in texts if secret in text or json.dumps(secret)[1:-1] in text), None
    )


def _write_value(value: object) -> str:
    """Write a value in Python, its further lines in the place where they stand in the test."""
    return pformat(value, width=100, sort_dicts=False).replace("\n", "\n    ")


def _slug(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.casefold())
    return "_".join(words)[:60].strip("_")

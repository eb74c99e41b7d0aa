"""How often the embedded model is right: `python -m tests.bench.local_model [--json] [--wrong]`.

The share of requests where it chose the wrong tools, and where anything at all was wrong with its calls, over three
apps. `--wrong` prints what it made of the requests that it was written against and got wrong; of the other half it
prints nothing, so that nobody writes against that too.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "recipes"))

from flowkit.codec import JSON, loads
from flowkit.messages import ToolSpec, UserMessage
from flowkit.models.base import CallDelta, ModelRequest
from flowkit.models.offline.local import LocalModel, start_local_model
from tests.bench.report import Report, wants_json
from tests.evaluation import NOW, PARTS, TOOLS, Call, Case, are_calls_right, are_tools_right, load_cases

SAID = {
    "first": "written against",
    "held": "held out",
    "korean": "Korean, written against",
    "korean_held": "Korean, held out",
    "beyond": "beyond the tools, written against",
    "beyond_held": "beyond the tools, held out",
}
GOALS = {"held": (0.15, 0.3), "korean_held": (0.1, 0.25), "beyond_held": (0.15, 0.15)}
"""Wrong tools and wrong calls, at most."""


async def ask(model: LocalModel, tools: Sequence[ToolSpec], request: str) -> list[Call]:
    """The calls that the model makes, read off its stream."""
    names: dict[object, str] = {}
    arguments: dict[object, str] = {}
    async with model.stream(ModelRequest(messages=(UserMessage(request),), tools=tuple(tools))) as deltas:
        async for delta in deltas:
            if isinstance(delta, CallDelta):
                names[delta.slot] = names.get(delta.slot, "") + (delta.name or "")
                arguments[delta.slot] = arguments.get(delta.slot, "") + (delta.arguments or "")
    return [Call(name, read_object(arguments[slot])) for slot, name in names.items()]


def read_object(text: str) -> Mapping[str, JSON]:
    """The arguments; broken ones are no arguments."""
    try:
        value = loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def count(
    report: Report, name: str, cases: Sequence[tuple[Case, list[Call]]], goals: tuple[float, float] | None
) -> None:
    """Two rows: tools and calls."""
    for what, is_right, goal in (
        ("tools", are_tools_right, goals and goals[0]),
        ("calls", are_calls_right, goals and goals[1]),
    ):
        right = sum(is_right(case, made) for case, made in cases)
        report.row(f"{name}: wrong {what}", 1 - right / len(cases), goal, right=f"{right} of {len(cases)}")


def main() -> None:
    """Print the shares of all parts."""
    report = Report("local_model", wants_json(sys.argv))
    results: list[tuple[Case, list[Call]]] = []

    async def go(model: LocalModel) -> None:
        for case in load_cases():
            results.append((case, await ask(model, case.specs, case.request)))
        await model.aclose()

    with start_local_model(now=lambda: NOW) as model:
        began = time.perf_counter()
        asyncio.run(go(model))
        each_s = (time.perf_counter() - began) / len(results)
    for part in PARTS:
        chosen = [(case, made) for case, made in results if case.part == part]
        count(report, SAID[part], chosen, GOALS.get(part))
        for app in TOOLS if part == "held" else ():
            count(report, f"{SAID[part]}, {app}", [(case, made) for case, made in chosen if case.app == app], None)
    report.row("a request", None, None, seconds=f"{each_s:.2f}")
    report.print()
    if "--wrong" in sys.argv:
        for case, made in results:
            if case.part == "first" and not are_calls_right(case, made):
                print(case.request, *(f"\n    {call.name} {call.arguments}" for call in made))


if __name__ == "__main__":
    main()

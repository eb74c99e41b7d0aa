"""Real tasks replayed: calls streamed one after another, tools of unequal length, references as recorded.

ComplexFuncBench (arXiv 2501.10132) and NESTFUL (arXiv 2409.03797), both Apache-2.0. The best possible end for a given
order of arrival is f_i = max(s_i, max f_p) + d_i: a call can't end before it was complete, or what it needs had ended,
and it ran. The executor has to reach exactly that.
"""

import asyncio
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from flowkit.codec import JSON
from flowkit.errors import GraphError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.graph import Graph
from flowkit.references import Path, Reference, ToolCall, find_references
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool
from tests.data_folder import plans
from tests.executing import Ran, Shelf, check_events

TICK = 1 / 64
"""All times are multiples of it, so that sums of floats are exact."""

REFERENCE = re.compile(r"\$(var\d+)((?:\.[^$]*)?)\$")


@dataclass(frozen=True)
class Plan:
    """A task's calls in the order of their making; `results` by label, `expected` the arguments by label."""

    name: str
    calls: tuple[ToolCall, ...]
    results: Mapping[str, JSON]
    expected: Mapping[str, Mapping[str, JSON]]


def read_complex() -> Iterator[Plan]:
    """The 500 tasks; 80 with their recorded responses, the others with results made so that each path is there."""
    folder = plans()
    rows = [json.loads(line) for line in (folder / "complexfuncbench_responses.jsonl").read_text().splitlines()]
    recorded = {row["id"]: row["responses"] for row in rows}
    for line in (folder / "complexfuncbench.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield make_plan(f"complexfuncbench {row['id']}", row["calls"], recorded.get(row["id"]))


def read_nested() -> Iterator[Plan]:
    """NESTFUL's tasks. Labels count the calls; in four tasks one stands twice, so each call is counted here."""
    for part in ("executable", "glaive", "sgd"):
        for number, row in enumerate(json.loads((plans() / f"nestful_v1_{part}_data.json").read_text())):
            calls = [{**call, "label": f"var{place}"} for place, call in enumerate(row["output"], 1)]
            yield make_plan(f"nestful {part} {number}", calls, None)


def find_spelled(value: JSON) -> Iterator[tuple[str, Path]]:
    if isinstance(value, str):
        match = REFERENCE.fullmatch(value)
        if match:
            yield match[1], tuple(match[2][1:].split(".")) if match[2] else ()
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from find_spelled(item)


def make_plan(name: str, calls: list[dict[str, Any]], recorded: Mapping[str, JSON] | None) -> Plan:
    results: dict[str, JSON] = {}
    spelled: dict[str, list[Path]] = {}
    for call in calls:
        for label, path in find_spelled(call["arguments"]):
            spelled.setdefault(label, []).append(path)
    for call in calls:
        label = call["label"]
        results[label] = recorded[label] if recorded is not None else make_result(label, spelled.get(label, []))
    made: list[ToolCall] = []
    expected: dict[str, Mapping[str, JSON]] = {}
    for call in calls:
        arguments: dict[str, object] = {"label": call["label"]}
        values: dict[str, JSON] = {}
        for key, value in call["arguments"].items():
            arguments[f"_{key}"], values[f"_{key}"] = spell(value, results)
        made.append(ToolCall(call["label"], "replay", arguments))
        expected[call["label"]] = values
    return Plan(name, tuple(made), results, expected)


def make_result(label: str, paths: list[Path]) -> JSON:
    """A result that has every path that is asked of it."""
    result: dict[str, JSON] = {"label": label}
    for path in sorted(paths, key=len):
        place = result
        for key in path[:-1]:
            found = place.get(str(key))
            if not isinstance(found, dict):
                found = place[str(key)] = {}
            place = found
        if path:
            place.setdefault(str(path[-1]), f"{label}{path}")
    return result


def spell(value: JSON, results: Mapping[str, JSON]) -> tuple[object, JSON]:
    """A recorded argument with explicit references, and what it has to become."""
    if isinstance(value, dict):
        pairs = {key: spell(item, results) for key, item in value.items()}
        return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}
    if isinstance(value, list):
        items = [spell(item, results) for item in value]
        return [item[0] for item in items], [item[1] for item in items]
    found = next(find_spelled(value), None)
    if found is None:
        return value, value
    label, path = found
    if label not in results:
        return Reference(label, path), None
    explicit, target = make_explicit(results[label], path)
    return Reference(label, explicit), target


def make_explicit(value: JSON, path: Path) -> tuple[Path, JSON]:
    """The path with the indices of the lists on the way: those of the first item that has the rest."""
    found = _first(value, path)
    assert found is not None, f"{path} is not in the recorded result"
    return found


def _first(value: JSON, path: Path) -> tuple[Path, JSON] | None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            found = _first(item, path)
            if found is not None:
                return (index, *found[0]), found[1]
        return None
    if not path:
        return (), value
    if not isinstance(value, dict) or path[0] not in value:
        return None
    found = _first(value[str(path[0])], path[1:])
    return None if found is None else ((path[0], *found[0]), found[1])


def replay(plan: Plan, seed: int) -> None:
    """Stream the plan's calls, run them, and compare with what is best possible."""
    chance = random.Random(seed)
    pauses = [TICK * chance.randrange(1, 40) for _ in plan.calls]
    lengths = {call.id: TICK * chance.randrange(1, 400) for call in plan.calls}
    took: dict[str, Mapping[str, JSON]] = {}

    @tool(name="replay", effect="read")
    async def answer(label: str, **arguments: Any) -> Any:
        """Answer as recorded."""
        took[label] = arguments
        await asyncio.sleep(lengths[label])
        return plan.results[label]

    async def go() -> Ran:
        log = EventLog("run", asyncio.get_running_loop().time)
        executor = Executor(Shelf([answer]), log, slots=len(plan.calls))
        async with executor:
            for call, pause in zip(plan.calls, pauses, strict=True):
                executor.announce(call.id, call.name)
                await asyncio.sleep(pause)
                executor.start_early(call)
                executor.seal(call)
            await executor.wait()
        return Ran(executor, log)

    ran = run_virtual(go())
    check_events(ran)
    assert took == plan.expected, plan.name
    best: dict[str, float] = {}
    now = 0.0
    for call, pause in zip(plan.calls, pauses, strict=True):
        now += pause
        needed = [best[reference.call_id] for reference in find_references(call.arguments)]
        best[call.id] = max([now, *needed]) + lengths[call.id]
        assert ran[call.id].ended_s == best[call.id], plan.name
    assert ran.makespan == max(best.values())


@pytest.mark.slow
def test_tasks_with_references_added_afterwards_run_as_fast_as_can_be() -> None:
    read = list(read_complex())
    assert len(read) == 500
    for seed, plan in enumerate(read):
        replay(plan, seed)


def test_prices_and_signs_of_placeholders_in_recorded_results_are_among_what_is_replayed() -> None:
    found = re.findall(r"\$\d", json.dumps([plan.results for plan in read_complex()]))
    assert len(found) > 500


def test_tasks_with_their_authors_references_run_as_fast_as_can_be() -> None:
    sound = [plan for plan in read_nested() if leads_back(plan)]
    assert len(sound) == 298
    for seed, plan in enumerate(sound):
        replay(plan, seed)


def test_tasks_whose_authors_refer_to_a_missing_or_to_their_own_call_are_refused_at_once() -> None:
    broken = [plan for plan in read_nested() if not leads_back(plan)]
    assert len(broken) == 2
    for plan in broken:
        with pytest.raises(GraphError, match="refers to"):
            Graph(plan.calls)


def leads_back(plan: Plan) -> bool:
    """Whether every reference is to an earlier call."""
    seen: set[str] = set()
    for call in plan.calls:
        if any(reference.call_id not in seen for reference in find_references(call.arguments)):
            return False
        seen.add(call.id)
    return True

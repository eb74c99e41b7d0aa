"""Event logs of random graphs in virtual time, to compare two commits: `python -m tests.event_logs FILE [COUNT]`.

A change of the executor that is only for speed leaves the file as it was, byte for byte.
"""

import sys
from pathlib import Path
from random import Random

from flowkit.executor import Executor
from flowkit.graph import Body, Each, item_id
from flowkit.references import Reference, ToolCall
from tests.executing import execute
from tests.test_executor_orders import TOOLS, drive_in_any_order


def make_each(random: Random, name: str) -> Each:
    """Make a list of items to go through, with one or two calls for each."""
    first = ToolCall(f"{name}/a", random.choice(TOOLS).name, {"number": Reference(item_id(name))})
    if first.name == "quote":
        first = ToolCall(first.id, first.name)
    second = ToolCall(f"{name}/b", random.choice(["look", "change"]), {"number": Reference(first.id)})
    nodes = random.choice([(first,), (first, second)])
    return Each(
        name,
        [random.choice([0, 1, 2, "no number"]) for _ in range(random.randint(0, 4))],
        Body(nodes, random.choice([Reference(nodes[-1].id), [Reference(node.id) for node in nodes]])),
        at_once=random.choice([None, 1, 2]),
        on_error=random.choice(["fail", "stop", "skip", "null"]),
    )


def run_graph_of(seed: int) -> list[str]:
    """Run one graph, and list its events and outcomes."""
    random = Random(seed)

    async def drive(executor: Executor) -> None:
        await drive_in_any_order(executor, random)

    nodes = [make_each(random, f"e{number}") for number in range(random.randint(0, 2))]
    ran = execute(TOOLS, nodes, drive, slots=random.randint(1, 3), random=lambda: 0.5)
    outcomes = [f"{name} {outcome!r}" for name, outcome in ran.executor.outcomes.items()]
    return [f"graph {seed}", *map(repr, ran.log.events), *outcomes]


def main(file: str, count: str = "300") -> None:
    """Write the logs of so many graphs."""
    lines = [line for seed in range(int(count)) for line in run_graph_of(seed)]
    Path(file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{count} graphs, {len(lines)} events and outcomes")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The executor's graphs, run by other frameworks: their graph is built beforehand, flowkit's is built as it runs.

Pydantic's graph is left out: it is a machine of states, in which no node waits for several that are named.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tests.bench.peers.found import find_graphs
from tests.bench.report import Report, compare


def compare_graphs(
    report: Report,
    case: str,
    edges: Sequence[Sequence[int]],
    ours: Callable[[], object],
    durations_s: Sequence[float] = (),
) -> None:
    """A row for each peer: CPU time of nodes that do nothing, or real time of nodes that sleep."""
    clock = time.perf_counter if durations_s else time.process_time
    for name, peer in find_graphs(report).items():
        began_s = clock()
        run = peer.make_graph(edges, durations_s or [0.0] * len(edges))
        built_s = clock() - began_s

        def theirs(run: Callable[[], Coroutine[Any, Any, object]] = run) -> None:
            asyncio.run(run())

        ours_s, peer_s = compare(ours, theirs, clock=clock)
        figures = {"ours_ms": ours_s, f"{name}_ms": peer_s, "built_in_ms": built_s}
        shown = {key: f"{seconds * 1000:.1f}" for key, seconds in figures.items()}
        report.row(f"{case}: {name}", ours_s / peer_s, None, **shown)

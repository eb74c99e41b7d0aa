"""How far a long run is: steps done, running, failed, and when it may be ready."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from flowkit.codec import JSON
from flowkit.errors import ResolutionError
from flowkit.events import CallFinished, CallNew, CallStarted, Event
from flowkit.graph import Each, Graph, Node, get_bodies
from flowkit.graph.pictures.timeline import format_seconds
from flowkit.references import Reference, lookup

_FAILED = frozenset(("call.failed", "call.denied", "call.in_doubt"))
_LEFT_OUT = frozenset(("call.skipped", "call.cancelled", "call.void"))


@dataclass(slots=True)
class Steps:
    """Counts of calls by state; `expected` grows when a list is there whose items are steps, or when more calls come.

    `waiting` are the `each` nodes whose items aren't known yet, by the call that returns their list.
    """

    expected: int = 0
    opened: int = 0
    done: int = 0
    recorded: int = 0
    from_cache: int = 0
    failed: int = 0
    left_out: int = 0
    running: set[str] = field(default_factory=set[str])
    waiting: dict[str, list[Each]] = field(default_factory=dict[str, list[Each]])

    @classmethod
    def of_graph(cls, graph: Graph) -> "Steps":
        """Make the steps of a recipe, none of which has begun."""
        steps = cls()
        steps.expected = steps._expect(graph.values())
        return steps

    def apply(self, event: Event) -> None:
        """Count this event."""
        call = str(getattr(event, "call", ""))
        match event:
            case CallNew():
                self.opened += 1
                return
            case CallStarted():
                self.running.add(call)
                return
            case CallFinished(source=source, value=value):
                self.done += 1
                self.recorded += source == "journal"
                self.from_cache += source == "cache"
                for each in self.waiting.pop(call, ()):
                    self._expect_items(each, value)
            case _:
                self.failed += event.type in _FAILED
                self.left_out += event.type in _LEFT_OUT
                if event.type not in _FAILED | _LEFT_OUT:
                    return
        self.running.discard(call)

    @property
    def are_over(self) -> bool:
        """Whether each has finished."""
        return self.done + self.failed + self.left_out >= max(self.expected, self.opened)

    def say(self, now: float) -> str:
        """Return one line: `57 of 203 steps done, 8 running, about 12 s left`.

        The time left assumes that the rest goes at the pace of what this run has done itself so far.
        """
        total = max(self.expected, self.opened)
        ended = self.done + self.failed + self.left_out
        parts = [f"{self.done} of {total} steps done"]
        if self.recorded:
            parts[0] += f" ({self.recorded} recorded before)"
        if self.from_cache:
            parts.append(f"{self.from_cache} from the cache")
        if self.running:
            parts.append(f"{len(self.running)} running")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.left_out:
            parts.append(f"{self.left_out} left out")
        worked = ended - self.recorded - self.from_cache
        if worked >= 3 and total > ended and self.running and not self.waiting:
            parts.append(f"about {format_seconds(now / worked * (total - ended))} left")
        return ", ".join(parts)

    def _expect(self, nodes: Iterable[Node]) -> int:
        """Count these steps, those inside them included; note the lists that aren't there yet."""
        count = 0
        for node in nodes:
            count += 1
            if not isinstance(node, Each):
                count += sum(self._expect(body.nodes) for _, body in get_bodies(node))
            elif isinstance(node.over, Reference):
                self.waiting.setdefault(node.over.call_id, []).append(node)
            else:
                count += len(cast(list[object], node.over)) * len(node.body.nodes)
        return count

    def _expect_items(self, each: Each, value: JSON) -> None:
        try:
            items = lookup(value, cast(Reference, each.over).path)
        except ResolutionError:
            return
        if isinstance(items, list):
            # What stands inside an `each` inside is counted when it comes.
            self.expected += len(items) * len(each.body.nodes)

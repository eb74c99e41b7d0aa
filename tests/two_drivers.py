"""One run that several processes drive, each of which a test may stop before and after any call of its journal.

Outside of flowkit a list notes each effect, as a bank would.
"""

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from hypothesis import strategies as st

from flowkit import Context, tool
from flowkit.context import CONTEXT
from flowkit.errors import RunBusy, RunError, StoreError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.identity import RunIdentity
from flowkit.journal import Done, Journal, Retry, RunJournal
from flowkit.references import ToolCall
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset

Call = Callable[..., Awaitable[Any]]
"""Calls a method of a journal with these arguments, at the moments that a test chooses."""
NAMES = st.lists(st.sampled_from(["pay", "pay_slowly", "put", "look"]), min_size=1, max_size=3)


class World:
    """The tools, what they have done outside, and whether their service can say so."""

    def __init__(self, names: Sequence[str], *, tells: bool) -> None:
        self.effects: list[tuple[str, str]] = []
        self._tells = tells
        self.tools = Toolset(
            self._make("pay", "write"),
            self._make("pay_slowly", "write", timeout=30),
            self._make("put", "idempotent"),
            self._make("look", "read"),
        )
        self.calls = [ToolCall(f"c{number}", name) for number, name in enumerate(names)]

    def settle(self, journal: Journal) -> None:
        """Look at what is in doubt, as a person who asks the bank."""
        shown = journal.show("r")
        for node, found in shown.nodes.items() if shown is not None else ():
            if found.state == "in_doubt":
                happened = any(call == node for _, call in self.effects)
                try:
                    journal.resolve("r", node, Done("paid") if happened else Retry(), by="kim")
                except RunError:
                    continue  # it may still be running, or somebody settled it

    def check(self, *, at_end: bool = False) -> None:
        """No write happened twice, and at the end each one has happened."""
        counts = Counter(call for name, call in self.effects if name.startswith("pay"))
        assert all(count == 1 for count in counts.values()), counts
        if at_end:
            assert counts.keys() == {call.id for call in self.calls if call.name.startswith("pay")}

    def _make(self, name: str, effect: Literal["read", "idempotent", "write"], **options: Any) -> Tool[..., Any]:
        async def act(ctx: Context[Any] = CONTEXT) -> str:
            self.effects.append((name, ctx.call_id))
            return name

        def probe(ctx: Context[Any] = CONTEXT) -> object:
            if not self._tells:
                return None
            return Done("paid") if (name, ctx.call_id) in self.effects else Retry()

        if effect == "write":
            options["probe"] = probe
        return tool(name=name, effect=effect, **options)(act)


async def drive(world: World, journal: Journal, call: Call) -> None:
    """Drive the run as one process would, until it ends or somebody else has it."""
    try:
        run = await call(journal.open_run, "r", name="n", user="ann")
    except RunBusy:
        return
    stepped: Any = SteppedJournal(run, call)
    log = EventLog("r", lambda: 0.0)
    log.first_seq = run.first_seq
    try:
        identity = RunIdentity("ann", None, "r")
        async with Executor(world.tools, log, identity=identity, journal=stepped, slots=1) as executor:
            for one in world.calls:
                executor.add(one)
            await executor.wait()
        states = {outcome.state for outcome in executor.outcomes.values()}
        await stepped.finish("in_doubt" if "in_doubt" in states else "done")
    except (RunError, StoreError):
        await run.close()


class SteppedJournal:
    """A run's journal, each of whose calls goes through `call`."""

    def __init__(self, run: RunJournal, call: Call) -> None:
        self._run = run
        self._call = call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._run, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def stepped(*args: Any, **named: Any) -> Any:
            return await self._call(found, *args, **named)

        return stepped

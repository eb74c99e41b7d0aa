"""The result of a run of any kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from flowkit import codec
from flowkit.errors import FlowkitError, RunNotDone
from flowkit.events import RunStatus
from flowkit.executor import Outcome
from flowkit.messages import Usage
from flowkit.notebook import Bundle, show_table
from flowkit.runs.costs import Cost

OutputT_co = TypeVar("OutputT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that waits for a person; `arguments` are final, references resolved. `id` is the key of its decision."""

    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(Generic[OutputT_co]):
    """The result of a run.

    - `output_or_none` is None unless `status` is `done`.
    - `calls` has the outcome of every call, including needed ones.
    - `usage` and `cost_usd` include all models, also those that tools called, and the usage before a crash. `cost_usd`
      is None if a price is unknown.
    - `costs` has the cost by agent, model, tool and user; `sum_costs` adds it up.
    - `pending` are the calls that wait for a person.
    """

    status: RunStatus
    output_or_none: OutputT_co | None = None
    calls: tuple[Outcome, ...] = ()
    usage: Usage
    cost_usd: float | None
    costs: tuple[Cost, ...] = ()
    pending: tuple[Pending, ...] = ()
    error: FlowkitError | None = None
    run_id: str

    @property
    def output(self) -> OutputT_co:
        """The output; raises `RunNotDone`, which names the status, where there is none."""
        if self.status != "done":
            raise RunNotDone(self.run_id, self.status, self._explain()) from self.error
        return cast(OutputT_co, self.output_or_none)

    @property
    def cost(self) -> float | None:
        """`cost_usd`, in short."""
        return self.cost_usd

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show the result and its calls in a notebook."""
        calls = "\n".join(f"{one.call.name}  {one.state}  {_say_end(one)}" for one in self.calls)
        waits = ", ".join(pending.id for pending in self.pending)
        output, error = self.output_or_none, self.error
        rows = [("output", output), ("error", error), ("waits for a person", waits), ("calls", calls)]
        return show_table(
            f"run {self.run_id}: {self.status}", [*rows, ("cost", f"${self.cost_usd:.4f}" if self.cost_usd else None)]
        )

    def _explain(self) -> str:
        if self.status == "waiting" and self.pending:
            return "a person has to decide on " + ", ".join(pending.id for pending in self.pending)
        return "" if self.error is None else str(self.error)


def _say_end(outcome: Outcome) -> str:
    text = outcome.error or codec.dumps(outcome.value).decode()
    return text if len(text) <= 80 else f"{text[:79]}…"

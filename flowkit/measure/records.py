"""The records of a measurement, one per run, and their JSON file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from flowkit.errors import ConfigurationError

VERSION = 1


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call that a model made; `arguments_s` is from its first byte to its arguments being complete."""

    tool: str
    arguments: Mapping[str, Any]
    arguments_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRun:
    """One run of one case with one model.

    `first_token_s` is from the first request to the first piece of an answer: text, thinking or a call. `calls_right`
    and `answer_right` are None where the case doesn't judge them. `wrong` says what is wrong, `error` why there is no
    answer. `stubbed` names the writes that were answered and not run.
    """

    model: str
    case: str
    message: str
    repeat: int = 1
    status: str = "done"
    error: str | None = None
    seconds: float
    first_token_s: float | None = None
    calls: tuple[MadeCall, ...] = ()
    calls_right: bool | None = None
    answer: str = ""
    answer_right: bool | None = None
    wrong: tuple[str, ...] = ()
    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None
    stubbed: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Return whether it is done, and everything that the case judges is right."""
        return self.status == "done" and self.calls_right is not False and self.answer_right is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All runs, in the order in which they were made; `judge_cost_usd` is what judging cost beside them."""

    app: str
    models: tuple[str, ...]
    cases: tuple[str, ...]
    repeats: int = 1
    measured_at: str = ""
    runs: tuple[CaseRun, ...] = ()
    judge: str | None = None
    judge_cost_usd: float | None = None
    notes: tuple[str, ...] = ()
    flowkit_measure: int = field(default=VERSION)

    def runs_of(self, model: str) -> tuple[CaseRun, ...]:
        """Return the runs of one model."""
        return tuple(run for run in self.runs if run.model == model)

    def to_json(self) -> bytes:
        """Write the file as `read_measured` reads it."""
        return _adapter().dump_json(self, indent=1) + b"\n"


@cache
def _adapter() -> TypeAdapter[Measured]:
    return TypeAdapter(Measured)


def read_measured(path: Path) -> Measured:
    """Read a saved measurement; raises `ConfigurationError` where the file is none."""
    try:
        read = _adapter().validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the measurement {str(path)!r} can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(
            f"{str(path)!r} isn't a measurement: {where}{': ' if where else ''}{first['msg']}"
        ) from error
    if read.flowkit_measure != VERSION:
        raise ConfigurationError(
            f"{str(path)!r} is a measurement of version {read.flowkit_measure}, expected {VERSION}"
        )
    return read

"""A run of a recipe as its journal knows it: its inputs, and what each step gave, under the step's id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import ConfigurationError
from flowkit.exports.recorded_run import keep_media
from flowkit.journal import RunDetails
from flowkit.models.recording import HIDDEN


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """What a call gave; `error` is why it failed, `is_denied` says that a person denied it."""

    id: str
    tool: str
    value: JSON = None
    error: str | None = None
    is_denied: bool = False

    def to_json(self) -> dict[str, JSON]:
        """Write a line of the recording."""
        said: dict[str, JSON] = {"value": self.value} if self.error is None else {"error": self.error}
        return {"step": self.id, "tool": self.tool, **said, **({"denied": True} if self.is_denied else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> "RecordedStep":
        """Read what `to_json` wrote."""
        error = data.get("error")
        said = error if isinstance(error, str) else None
        return cls(str(data["step"]), str(data["tool"]), data.get("value"), said, data.get("denied") is True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRecipe:
    """A whole run; `error` is why it failed."""

    run_id: str
    recipe: str
    user: str | None
    session: str | None
    inputs: Mapping[str, JSON]
    steps: tuple[RecordedStep, ...]
    status: str
    error: str | None = None

    @property
    def text(self) -> str:
        """The recipe and its inputs in a few words, to name a test after."""
        return " ".join([self.recipe, *(str(value) for value in self.inputs.values() if isinstance(value, str | int))])


def read_recipe_run(details: RunDetails) -> RecordedRecipe:
    """Read a run of a recipe that has ended. Raises `ConfigurationError` for any other."""
    summary = details.summary
    if summary.status not in ("done", "failed"):
        raise ConfigurationError(
            f"run {summary.run_id!r} is {summary.status}; a recipe's run is exported when it is done or has failed"
        )
    steps: list[RecordedStep] = []
    for node in details.nodes.values():
        if not node.is_ended:
            raise ConfigurationError(f"run {summary.run_id!r} has no result of {node.node!r}; resolve it first")
        if node.state in ("finished", "failed", "denied"):
            error = None if node.state == "finished" else node.error or node.state
            steps.append(RecordedStep(node.node, node.tool, keep_media(node.value), error, node.state == "denied"))
    known = {step.id for step in steps}
    for node, approval in details.approvals.items():
        if node not in known and approval.decision is not None and not approval.decision.approved:
            steps.append(RecordedStep(node, approval.name, error=approval.decision.reason, is_denied=True))
    return RecordedRecipe(
        run_id=summary.run_id,
        recipe=summary.name,
        user=summary.user,
        session=summary.session,
        inputs=cast(Mapping[str, JSON], details.inputs),
        steps=tuple(steps),
        status=summary.status,
        error=summary.error,
    )


def write_recipe_run(run: RecordedRecipe, path: Path, hide: Sequence[str] = ()) -> None:
    """Write the recording: a line for the run, and one for each step."""
    about: dict[str, JSON] = {
        "run": run.run_id,
        "recipe": run.recipe,
        "user": run.user,
        "session": run.session,
        "inputs": dict(run.inputs),
        "status": run.status,
        "error": run.error,
    }
    lines: list[JSON] = [{"about": about}, *(step.to_json() for step in run.steps)]
    path.write_bytes(b"".join(dumps(_hide(line, hide)) + b"\n" for line in lines))


def load_recipe_run(path: Path) -> RecordedRecipe:
    """Read what `write_recipe_run` wrote."""
    try:
        first, *lines = [cast(dict[str, JSON], loads(line)) for line in path.read_bytes().splitlines()]
        about = cast(dict[str, JSON], first["about"])
        return RecordedRecipe(
            run_id=str(about["run"]),
            recipe=str(about["recipe"]),
            user=cast("str | None", about["user"]),
            session=cast("str | None", about["session"]),
            inputs=cast(Mapping[str, JSON], about["inputs"]),
            steps=tuple(RecordedStep.from_json(line) for line in lines),
            status=str(about["status"]),
            error=cast("str | None", about["error"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path}: not the recording of a recipe's run: {error}") from error


def _hide(value: JSON, hidden: Sequence[str]) -> JSON:
    if isinstance(value, str):
        for text in hidden:
            value = value.replace(text, HIDDEN)
        return value
    if isinstance(value, dict):
        return {name: _hide(inner, hidden) for name, inner in value.items()}
    return [_hide(inner, hidden) for inner in value] if isinstance(value, list) else value

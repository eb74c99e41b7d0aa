"""Read an agent's run from the journal: its message, its model's answers, and its tools' results.

Read a recipe's run from the journal: its inputs, and each step's result by the step's id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flowkit import codec
from flowkit.codec import JSON, dumps, loads
from flowkit.errors import ConfigurationError
from flowkit.journal import Approval, Journal, RunDetails
from flowkit.media import Media, fill_media, read_media, write_media
from flowkit.messages import AssistantMessage, Message, UserMessage, message_from_json, read_content, text_of
from flowkit.models.recording import HIDDEN

_MEDIA = "$media"
"""Where a recorded result has an image, a sound or a file, with its content."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call by the model; `error` is the message that the model read if it failed. Secrets are masked."""

    tool: str
    arguments: Mapping[str, JSON]
    value: JSON = None
    error: str | None = None

    def to_json(self) -> dict[str, JSON]:
        return {"tool": self.tool, "arguments": dict(self.arguments), "value": self.value, "error": self.error}

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> "RecordedCall":
        error = data.get("error")
        arguments = cast(Mapping[str, JSON], data["arguments"])
        return cls(str(data["tool"]), arguments, data.get("value"), error if isinstance(error, str) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A whole run; `answers` are the model's, one for each turn, and `calls` those that it made, in their order."""

    run_id: str
    agent: str
    user: str | None
    session: str | None
    message: UserMessage
    history: tuple[Message, ...]
    answers: tuple[AssistantMessage, ...]
    calls: tuple[RecordedCall, ...]
    status: str
    output: JSON
    error: str | None = None

    @property
    def text(self) -> str:
        """The user's message, as text."""
        return text_of(self.message.content)

    def to_json(self) -> dict[str, JSON]:
        """Write what a replay needs of it besides the answers."""
        return {
            "run": self.run_id,
            "agent": self.agent,
            "user": self.user,
            "session": self.session,
            "message": self.message.to_json(),
            "history": [message.to_json() for message in self.history],
            "calls": [call.to_json() for call in self.calls],
            "status": self.status,
            "turns": len(self.answers),
            "error": self.error,
        }


def read_run(journal: Journal, run_id: str) -> RecordedRun:
    """Read a finished run of an agent. Raises `ConfigurationError` for any other."""
    details = journal.show(run_id)
    if details is None:
        raise ConfigurationError(f"no run {run_id!r} in the journal")
    given = details.inputs
    if not isinstance(given, dict) or not {"message", "history"} <= given.keys():
        raise ConfigurationError(f"run {run_id!r} is of a recipe; a case is made of an agent's run")
    if not details.turns and details.summary.status != "failed":
        raise ConfigurationError(f"run {run_id!r} has no answer of its model yet, so there is nothing to export")
    message = None if given["message"] is None else message_from_json(cast(Mapping[str, JSON], given["message"]))
    if not isinstance(message, UserMessage):
        raise ConfigurationError(f"run {run_id!r} began without a message of a user, and can't be exported")
    calls, answers = _read_turns(details)
    summary = details.summary
    said = cast(Sequence[JSON], given["history"])
    if not said and summary.session is not None:
        said = journal.conversation(summary.session, user=summary.user, before=run_id)
    return RecordedRun(
        run_id=run_id,
        agent=summary.name,
        user=summary.user,
        session=summary.session,
        message=message,
        history=tuple(message_from_json(cast(Mapping[str, JSON], one)) for one in said),
        answers=answers,
        calls=calls,
        status=summary.status,
        output=details.output,
        error=summary.error,
    )


def _read_turns(details: RunDetails) -> tuple[tuple[RecordedCall, ...], tuple[AssistantMessage, ...]]:
    calls: list[RecordedCall] = []
    answers: list[AssistantMessage] = []
    for turn in details.turns:
        fields = cast(Mapping[str, JSON], turn.message)
        message = message_from_json(cast(Mapping[str, JSON], fields["message"]))
        assert isinstance(message, AssistantMessage)
        answers.append(message)
        for requested, node in zip(message.calls, cast(Sequence[str], fields["nodes"]), strict=True):
            record = details.nodes.get(node)
            refusal = _read_refusal(details.approvals.get(node))
            if record is None and refusal is not None:
                calls.append(RecordedCall(requested.name, _read_arguments(requested.arguments), error=refusal))
                continue
            if record is None or not record.is_ended:
                raise ConfigurationError(
                    f"run {details.summary.run_id!r} hasn't ended: {node} has no result; resume or resolve it first"
                )
            # The journal doesn't keep a read's arguments twice: they stand in the model's message.
            given = record.arguments
            arguments = given if isinstance(given, dict) else _read_arguments(requested.arguments)
            error = None if record.state == "finished" else record.error or record.state
            calls.append(RecordedCall(record.tool, arguments, keep_media(record.value), error))
    if details.summary.status not in ("done", "limit", "failed"):
        raise ConfigurationError(f"run {details.summary.run_id!r} hasn't ended: it is {details.summary.status}")
    return tuple(calls), tuple(answers)


def _read_refusal(approval: Approval | None) -> str | None:
    """Return the reason given for denying the call; None for a call that wasn't denied."""
    decision = None if approval is None else approval.decision
    return f"denied: {decision.reason or 'no reason given'}" if decision is not None and not decision.approved else None


def _read_arguments(text: str) -> Mapping[str, JSON]:
    """Read the arguments that a model wrote; empty if they aren't an object."""
    try:
        value = codec.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def keep_media(value: JSON) -> JSON:
    """Put the content of images, audio and files into a result; the journal stores it separately, for a limited time."""
    media = read_media(value)
    if media is not None:
        return {_MEDIA: (fill_media(media) or media).to_json()}
    if isinstance(value, dict):
        return {name: keep_media(inner) for name, inner in value.items()}
    return [keep_media(inner) for inner in value] if isinstance(value, list) else value


def give_media(value: JSON) -> JSON:
    """Take them out again, as a tool's result has them."""
    if isinstance(value, dict):
        kept = value.get(_MEDIA)
        if isinstance(kept, dict):
            (media,) = read_content([kept])
            return write_media(media) if isinstance(media, Media) else kept
        return {name: give_media(inner) for name, inner in value.items()}
    return [give_media(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step's result; `error` is the reason of a failure, `is_denied` means that a person denied it."""

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
    """Read a finished run of a recipe. Raises `ConfigurationError` for any other."""
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
    """Read the file of `write_recipe_run`."""
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

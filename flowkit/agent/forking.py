"""A fork: a new run that starts from the state of another one before one of its turns.

Its history is the messages before that turn, with the results of their calls. So none of these calls runs again, and
above all no write: for the fork they have happened, and the model sees their results.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from flowkit.agent.plan import ForkPoint, Given
from flowkit.codec import JSON, dumps
from flowkit.errors import RunError
from flowkit.journal import Journal, RecordedTurn, RunDetails
from flowkit.journal.unfinished_messages import recall
from flowkit.messages import Message, ToolMessage

AT = re.compile(r"turn/([1-9]\d*)")


def read_fork(journal: Journal, fork: ForkPoint) -> tuple[Message, ...]:
    """Read the messages that the new run starts with; blocks while the journal is read.

    Raises `RunError` for a missing run or turn, for an earlier call that waits or is in doubt, and for a result without
    a call.
    """
    run_id, at = fork.run_id, fork.at
    details = None if fork.session is None else journal.show(run_id, user=fork.user, session=fork.session)
    details = details or journal.show(run_id, user=fork.user)
    if details is None:
        raise RunError(f"there is no run {run_id!r} to fork")
    found = AT.fullmatch(at)
    if found is None:
        raise RunError(f"at={at!r}: expected the turn that the fork asks anew, as in 'turn/2'")
    kept = [turn for turn in details.turns if turn.turn < int(found[1])]
    last = details.turns[-1].turn + 1 if details.turns else 1
    if int(found[1]) > last or (details.turns and int(found[1]) < details.turns[0].turn):
        raise RunError(f"run {run_id!r} has no {at}; it has come to turn/{last}")
    calls = dict(_list_calls(kept))
    _check_ended(details, calls)
    replaced = _name_results(run_id, calls, fork.results)
    said = Given.read_messages(recall(replace(details, turns=tuple(kept))))
    return tuple(_replace(message, replaced) for message in (*_read_history(journal, details), *said))


def _read_history(journal: Journal, details: RunDetails) -> tuple[Message, ...]:
    """Read the messages from before the run, from its input or its session."""
    given = Given.from_json(details.inputs).history
    session = details.summary.session
    if given or session is None:
        return given
    user = details.summary.user
    return Given.read_messages(journal.conversation(session, user=user, before=details.summary.run_id))


def _list_calls(turns: list[RecordedTurn]) -> Iterator[tuple[str, str]]:
    """Yield the name of each call in the run with the id that the model gave it."""
    for turn in turns:
        match turn.message:
            case {"message": {"calls": list(calls)}, "nodes": list(nodes)}:
                for call, node in zip(calls, nodes, strict=True):
                    yield str(node), str(call["id"]) if isinstance(call, dict) else ""
            case _:
                pass


def _check_ended(details: RunDetails, calls: Mapping[str, str]) -> None:
    for name in calls:
        node = details.nodes.get(name)
        if node is not None and node.state in ("claimed", "in_doubt"):
            raise RunError(f"{name} may have happened: settle it before the run is forked behind it")
        approval = details.approvals.get(name)
        if approval is not None and approval.decision is None:
            raise RunError(f"{name} waits for a person: decide on it before the run is forked behind it")


def _name_results(run_id: str, calls: Mapping[str, str], results: Mapping[str, JSON]) -> dict[str, str]:
    """Return the texts of the given results, by the model's ids of their calls."""
    unknown = next((name for name in results if name not in calls), None)
    if unknown is not None:
        raise RunError(f"run {run_id!r} has no call {unknown!r} there; it has {', '.join(calls) or 'none'}")
    return {calls[name]: value if isinstance(value, str) else dumps(value).decode() for name, value in results.items()}


def _replace(message: Message, results: Mapping[str, str]) -> Message:
    if isinstance(message, ToolMessage) and message.call_id in results:
        return ToolMessage(message.call_id, message.name, results[message.call_id])
    return message

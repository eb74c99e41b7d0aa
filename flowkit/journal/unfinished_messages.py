"""The messages of a run that stopped before it could record them, rebuilt from its rows.

A run records its messages when it ends. A run that was killed, or is still in progress elsewhere, has its first
message among its inputs, the model's messages among its turns, and the results among its nodes. From these the next
message in the session can follow.
"""

from collections.abc import Iterator

from flowkit.codec import JSON, dumps
from flowkit.history import mend
from flowkit.journal.records import Recorded, RunDetails
from flowkit.media import show_media
from flowkit.messages import AssistantMessage, Message, RequestedCall, ToolMessage, message_from_json
from flowkit.tools.long_results import LongResults

NOT_KNOWN = "its result isn't known: the run was stopped before it finished, or is still in progress"
IN_DOUBT = "the run was stopped in the middle of it: it may have happened; don't repeat it"


def recall(run: RunDetails) -> list[JSON]:
    """Return its messages so far, each call with one result; none for a run that isn't an agent's."""
    return [message.to_json() for message in mend(tuple(_list_messages(run)), missing=NOT_KNOWN)]


def _list_messages(run: RunDetails) -> Iterator[Message]:
    match run.inputs:
        case {"message": {"role": "user"} as said}:
            yield message_from_json(said)
        case _:
            return
    for turn in run.turns:
        match turn.message:
            case {"message": {"role": "assistant"} as said, "nodes": list(nodes)}:
                message = message_from_json(said)
                assert isinstance(message, AssistantMessage), "its role says so"
                yield message
                for call, node in zip(message.calls, nodes, strict=True):
                    yield from _read_result(call, run.nodes.get(str(node)))
            case _:
                return


def _read_result(call: RequestedCall, found: Recorded | None) -> Iterator[ToolMessage]:
    """Yield the call's result, where it had one or may have one."""
    if found is None:
        return
    match found.state:
        case "finished":
            value, media = show_media(found.value)
            text = value if isinstance(value, str) else dumps(value).decode()
            yield ToolMessage(call.id, call.name, LongResults().show(call.id, text), media=media)
        case "in_doubt":
            yield ToolMessage(call.id, call.name, IN_DOUBT, is_error=True)
        case "claimed" | "retry":
            return
        case "failed" | "skipped" | "denied" | "cancelled" | "void":
            yield ToolMessage(call.id, call.name, found.error or found.state, is_error=True)

"""A model's answer as the message that goes into the history, and the calls of such a message as they were sealed."""

from collections.abc import Iterable, Iterator

from flowkit.assemble import CallSealed, Turn
from flowkit.codec import dumps, loads
from flowkit.messages import AssistantMessage, ProviderData, RequestedCall


def make_message(turn: Turn, calls: Iterable[tuple[str, CallSealed]], source: str) -> AssistantMessage:
    """The message of a turn, with these calls under their tools' own names; `source` marks what goes back there only."""
    return AssistantMessage(
        text=turn.text,
        calls=tuple(_make_call(name, sealed, source) for name, sealed in calls),
        thinking=turn.thinking,
        refusal=turn.refusal,
        provider=tuple(_list_provider_data(turn, source)),
    )


def explain_stop(message: AssistantMessage) -> str:
    """What the server said of why it stopped, behind a colon; nothing where it said nothing."""
    for item in message.provider:
        if item.kind == "stop_details" and isinstance(item.data, dict):
            said = item.data.get("explanation") or item.data.get("category")
            return f": {said}" if isinstance(said, str) else ""
    return ""


def seal_again(call: RequestedCall, index: int) -> CallSealed:
    """The call as it was sealed when its message was made."""
    try:
        arguments = loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    return CallSealed(index, call.id, call.name, arguments if isinstance(arguments, dict) else None, call.arguments)


def _make_call(name: str, sealed: CallSealed, source: str) -> RequestedCall:
    provider = sealed.provider
    return RequestedCall(
        id=sealed.id,
        name=name,
        arguments=_write_arguments(sealed),
        provider=None if provider is None else ProviderData(source, provider.kind, provider.data),
    )


def _write_arguments(sealed: CallSealed) -> str:
    """The text that the model wrote where it is the arguments, byte for byte; else the arguments as they were read.

    Broken ones go back as an empty object, and the call's result tells why.
    """
    if sealed.arguments is None:
        return "{}"
    try:
        is_exact = loads(sealed.raw) == sealed.arguments
    except ValueError:
        is_exact = False
    return sealed.raw if is_exact else dumps(sealed.arguments).decode()


def _list_provider_data(turn: Turn, source: str) -> Iterator[ProviderData]:
    """What has to go back; servers want the thinking before calls under the name it came with, and only there."""
    if turn.calls and turn.thinking and turn.thinking_field:
        yield ProviderData(source, turn.thinking_field, turn.thinking)
    for item in turn.provider:
        yield ProviderData(source, item.kind, item.data)

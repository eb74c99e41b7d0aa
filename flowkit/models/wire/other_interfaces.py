"""What to tell when a server answers in the form of another interface than the one that was asked.

Otherwise the answer would look as if it had been cut.
"""

from collections.abc import Mapping

from flowkit.codec import JSON
from flowkit.errors import StreamError
from flowkit.models.wire.thinking import Api

_NAMES: Mapping[Api, str] = {
    "chat": "Chat Completions",
    "responses": "the Responses API",
    "anthropic": "the Messages API",
}
_MODELS: Mapping[Api, str] = {
    "chat": "OpenAIModel",
    "responses": "OpenAIModel with api='responses'",
    "anthropic": "AnthropicModel",
}
_MESSAGE_EVENTS = frozenset(
    ("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta")
)


def find_interface(answer: Mapping[str, JSON]) -> Api | None:
    """Find the interface in whose form an event or a whole answer is; None for what could be anything.

    >>> find_interface({"type": "message_start", "message": {}}), find_interface({"type": "ping"})
    ('anthropic', None)
    """
    kind, form = answer.get("type"), answer.get("object")
    if isinstance(answer.get("choices"), list):
        return "chat"
    if (isinstance(kind, str) and kind in _MESSAGE_EVENTS) or (
        kind == "message" and isinstance(answer.get("content"), list)
    ):
        return "anthropic"
    if isinstance(kind, str) and kind.startswith("response."):
        return "responses"
    return "responses" if form == "response" and isinstance(answer.get("output"), list) else None


def explain_interface(asked: Api, answered: Api) -> StreamError:
    """Explain that a server answered one interface's request in the form of another."""
    own = "OpenAIModel with api='chat'" if answered == "chat" and asked == "responses" else _MODELS[answered]
    return StreamError(
        f"the server answered in the form of {_NAMES[answered]}: use {own}, or its address for {_NAMES[asked]}"
    )

"""Write images, audio and files of tool results as each API accepts them.

The Messages API takes them inside a result, the Responses API in a result's output. In Chat Completions a tool's
message holds only text, so they follow in a user message, after all results of the turn
(https://platform.openai.com/docs/api-reference/chat/create). Content that an API doesn't accept is named in its place, so the
model knows that it existed.
"""

import logging
from collections.abc import Sequence

from flowkit.errors import ConfigurationError
from flowkit.media import Audio, File, Image, Media
from flowkit.messages import Content, Message, Text, ToolMessage, UserMessage
from flowkit.models.wire.settings import Api

logger = logging.getLogger("flowkit.models")

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"})
AUDIO_TYPES = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
"""What Chat Completions takes, and what it calls that."""
TEXT_CHARS_AT_MOST = 100_000
_TEXTS = ("text/", "application/json", "application/xml", "application/yaml", "application/toml")


def sort_media(media: Media, api: Api) -> Content:
    """Choose how a medium travels in a request: as itself, as the text of a text file, or as a note that it can't."""
    kind = media.media_type
    if isinstance(media, File) and kind in IMAGE_TYPES:
        return Image(media.address)
    if isinstance(media, File) and kind.startswith(_TEXTS):
        text = media.data.decode(errors="replace")
        more = len(text) - TEXT_CHARS_AT_MOST
        cut = f"\n[cut: {more:,} more characters]" if more > 0 else ""
        return Text(f"[file {media.name!r}]\n{text[:TEXT_CHARS_AT_MOST]}{cut}")
    refused = explain_refusal(media, api)
    return media if refused is None else Text(f"[{refused}]")


def explain_refusal(media: Media, api: Api) -> str | None:
    """Explain why an API can't accept it; None if it can."""
    kind = media.media_type
    match media:
        case Image():
            taken = not kind or kind in IMAGE_TYPES
        case Audio():
            taken = api == "chat" and kind in AUDIO_TYPES
        case File():
            taken = bool(media.file_id) or kind == "application/pdf" or kind in IMAGE_TYPES or kind.startswith(_TEXTS)
    name = type(media).__name__.lower()
    return None if taken else f"{name} not shown: this model's server takes no {kind or name} in a result"


def move_media(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Move the media of results to a user message, behind the results of the turn."""
    moved: list[Message] = []
    shown: list[Content] = []
    for message in messages:
        if shown and not isinstance(message, ToolMessage):
            moved.append(UserMessage(tuple(shown)))
            shown = []
        moved.append(message)
        if isinstance(message, ToolMessage) and message.media:
            shown.append(Text(f"[what {message.name or 'the tool'} gave, call {message.call_id}]"))
            shown += [sort_media(media, "chat") for media in message.media]
    return (*moved, UserMessage(tuple(shown))) if shown else tuple(moved)


def refuse_sound(messages: Sequence[Message], api: Api) -> None:
    """Raise `ConfigurationError` if the user's new message holds audio that the server would ignore.

    In earlier messages, sent to another model, a placeholder replaces it.
    """
    last = messages[-1] if messages else None
    if not isinstance(last, UserMessage) or isinstance(last.content, str):
        return
    for part in last.content:
        if isinstance(part, Audio) and explain_refusal(part, api) is not None:
            kind = part.media_type or "audio"
            if api == "chat":
                raise ConfigurationError(f"{kind} can't be sent: Chat Completions takes audio/wav and audio/mpeg")
            where = "the Messages API" if api == "anthropic" else "the Responses API (api='responses')"
            raise ConfigurationError(
                f"{kind} can't be sent: {where} takes no audio; ask a model that hears, by OpenAIModel(…, api='chat')"
            )


def tell_refused(messages: Sequence[Message], api: Api) -> None:
    """Log content of the newest results that a server doesn't accept; the model reads it in the results."""
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            return
        for media in message.media:
            refused = explain_refusal(media, api)
            if refused is not None:
                extra = {"call_id": message.call_id, "tool": message.name}
                logger.warning("%s: %s", message.name, refused, extra=extra)

"""A conversation in which user and assistant take turns, for servers whose chat templates refuse any other.

A conversation holds two messages of one role in a row where a run failed, was stopped, or reached a limit. What is kept
stays as it was said; what is sent is joined.
"""

from collections.abc import Sequence
from dataclasses import replace

from flowkit.messages import AssistantMessage, Content, Message, SystemMessage, Text, ToolMessage, UserMessage

NO_ANSWER = "(no answer)"
"""What the assistant says where its turn ended behind its tools' results."""


def alternate(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Merge consecutive messages of one role, so that roles alternate.

    Between a tool's result and a user's message stands a short one of the assistant.
    """
    sent: list[Message] = []
    for message in messages:
        last = sent[-1] if sent else None
        match last, message:
            case SystemMessage(), SystemMessage():
                sent[-1] = SystemMessage(f"{last.text}\n\n{message.text}")
            case UserMessage(), UserMessage():
                sent[-1] = UserMessage(_join(last.content, message.content))
            case AssistantMessage(calls=()), AssistantMessage():
                sent[-1] = replace(
                    message,
                    text="\n\n".join(filter(None, (last.text, message.text))),
                    refusal="\n\n".join(filter(None, (last.refusal, message.refusal))),
                    provider=(*last.provider, *message.provider),
                )
            case ToolMessage(), UserMessage():
                sent += (AssistantMessage(NO_ANSWER), message)
            case _:
                sent.append(message)
    return tuple(sent)


def _join(first: str | tuple[Content, ...], second: str | tuple[Content, ...]) -> str | tuple[Content, ...]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return (*_parts(first), *_parts(second))


def _parts(content: str | tuple[Content, ...]) -> tuple[Content, ...]:
    return (Text(content),) if isinstance(content, str) else content

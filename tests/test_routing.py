"""Models made of several."""

import pytest

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, ModelError, StreamError, StreamTruncated
from flowkit.messages import AssistantMessage, Message, ProviderData, RequestedCall, Usage, UserMessage
from flowkit.models.base import (
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    Model,
    ModelRequest,
    ProviderDelta,
    TextDelta,
    UsageDelta,
)
from flowkit.models.pricing import Price
from flowkit.models.routing import ANSWERED_BY, FallbackModel, Router, answered_by, restore_sources
from flowkit.models.scripted import CUT, Script, ScriptedModel, call
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.settings import Settings
from flowkit.testing import run_virtual

REQUEST = ModelRequest((UserMessage("hi"),))


async def say(model: Model, request: ModelRequest = REQUEST) -> list[Delta]:
    async with model.stream(request) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def scripted(name: str, *turns: Script, price: Price | None = None) -> ScriptedModel:
    return ScriptedModel(turns, name=name, price=price)


def test_the_first_model_answers_while_it_can() -> None:
    a, b = scripted("a", "from a"), scripted("b")
    assert text_of(run_virtual(say(FallbackModel(a, b)))) == "from a"
    assert b.requests == []


@pytest.mark.parametrize(
    "failing",
    [
        [ModelError("refused", status=503)],
        [ModelError("wrong key", status=401)],
        [0.1, StreamError("broke before a word")],
        [ErrorDelta(ModelError("overloaded"))],
        [CUT],
    ],
)
def test_the_next_model_answers_when_one_fails_before_a_word(failing: Script) -> None:
    a, b = scripted("a", failing), scripted("b", "from b")
    assert text_of(run_virtual(say(FallbackModel(a, b)))) == "from b"
    assert a.requests == b.requests == [REQUEST]


def test_an_answer_that_broke_is_not_joined_with_another() -> None:
    a, b = scripted("a", ["from a", StreamError("broke")]), scripted("b", "from b")
    with pytest.raises(StreamError, match="broke"):
        run_virtual(say(FallbackModel(a, b)))
    assert b.requests == []


def test_the_next_attempt_begins_with_the_next_model() -> None:
    a, b = scripted("a", "from a", "from a"), scripted("b", "from b")
    model = FallbackModel(a, b)
    heard = [text_of(run_virtual(say(model, ModelRequest((), attempt=attempt)))) for attempt in (1, 2, 3)]
    assert heard == ["from a", "from b", "from a"]


def test_the_error_of_all_names_each() -> None:
    a = scripted("a", [ModelError("no key", status=401)])
    b = scripted("b", [ModelError("slow down", status=429, retryable=True, retry_after_s=7)])
    with pytest.raises(ModelError, match="none of 2 models answered: a: no key; b: slow down") as failed:
        run_virtual(say(FallbackModel(a, b)))
    assert (failed.value.retryable, failed.value.retry_after_s) == (True, 7)


def test_a_fallback_of_one_fails_as_that_one_does() -> None:
    refused = ModelError("no")
    with pytest.raises(ModelError) as failed:
        run_virtual(say(FallbackModel(scripted("a", [refused]))))
    assert failed.value is refused


def test_a_fallback_needs_a_model() -> None:
    with pytest.raises(ConfigurationError):
        FallbackModel()


def test_the_rule_sees_the_messages_and_the_data() -> None:
    cheap, strong = scripted("cheap", "cheap"), scripted("strong", "strong")
    seen: list[tuple[tuple[Message, ...], object]] = []

    def rule(messages: tuple[Message, ...], data: object) -> Model:
        seen.append((messages, data))
        return strong if data == "vip" else cheap

    router = Router(rule, cheap, strong)
    assert text_of(run_virtual(say(router, ModelRequest(REQUEST.messages, data="vip")))) == "strong"
    assert text_of(run_virtual(say(router))) == "cheap"
    assert seen == [(REQUEST.messages, "vip"), (REQUEST.messages, None)]


def test_a_rule_may_wait() -> None:
    cheap = scripted("cheap", "cheap")

    async def rule(messages: tuple[Message, ...], data: object) -> Model:
        return cheap

    assert text_of(run_virtual(say(Router(rule, cheap)))) == "cheap"


def test_a_model_that_is_not_among_the_routers_is_refused() -> None:
    """Its price wasn't looked at when the run began."""
    cheap, stranger = scripted("cheap"), scripted("stranger", "hi")
    with pytest.raises(ConfigurationError, match="picked 'stranger'"):
        run_virtual(say(Router(lambda messages, data: stranger, cheap)))


def test_the_cost_is_that_of_the_model_which_answered() -> None:
    cheap = scripted("cheap", ["a", Usage(1_000_000, 0)], price=Price(input=1, output=1))
    strong = scripted("strong", ["a", Usage(1_000_000, 0)], price=Price(input=10, output=1))
    picks = iter([cheap, strong])
    router = Router(lambda messages, data: next(picks), cheap, strong)
    costs = [
        delta.usage.cost_usd for _ in range(2) for delta in run_virtual(say(router)) if isinstance(delta, UsageDelta)
    ]
    assert costs == [1.0, 10.0]


def test_an_answer_says_who_gave_it() -> None:
    a, b = scripted("a", [ModelError("no")]), scripted("b", "hi")
    deltas = run_virtual(say(FallbackModel(a, b)))
    assert deltas == [ProviderDelta(ANSWERED_BY, b.source), TextDelta("hi"), FinishDelta("stop"), EndDelta()]


def test_provider_data_goes_back_to_the_model_that_gave_it_and_to_no_other() -> None:
    """Also when the conversation has been on disk in between: the mark is part of the message."""
    deepseek = Settings(model="deepseek-v4", base_url="https://api.deepseek.com", thinking=False)
    other = Settings(model="house-model", base_url="https://api.deepseek.com")
    provider: tuple[tuple[str, JSON], ...] = ((ANSWERED_BY, deepseek.source), ("reasoning_content", "hm"))
    signed = ProviderData("router r", "extra_content", {"s": 1})
    message = AssistantMessage(
        "Hi",
        (RequestedCall("c", "f", "{}", signed),),
        provider=tuple(ProviderData("router r", kind, data) for kind, data in provider),
    )
    request = restore_sources(ModelRequest((message,)), "router r")
    [sent] = messages_of(request, deepseek)
    assert sent["reasoning_content"] == "hm"
    assert "extra_content" in str(sent["tool_calls"])
    [sent] = messages_of(request, other)
    assert "reasoning_content" not in sent
    assert "extra_content" not in str(sent["tool_calls"])
    assert answered_by(message) == deepseek.source


def test_marks_of_nested_routers_come_off_one_after_the_other() -> None:
    inner_model = scripted("m", "hi")
    inner = FallbackModel(inner_model)
    outer = Router(lambda messages, data: inner, inner)
    marks = [delta for delta in run_virtual(say(outer)) if isinstance(delta, ProviderDelta)]
    provider = [ProviderData(outer.source, mark.kind, mark.data) for mark in marks]
    message = AssistantMessage("hi", provider=(*provider, ProviderData(outer.source, "reasoning", "hm")))
    request = ModelRequest((message,))
    for router in (outer, inner):
        request = restore_sources(request, router.source)
    [restored] = request.messages
    assert isinstance(restored, AssistantMessage)
    assert restored.provider == (ProviderData(inner_model.source, "reasoning", "hm"),)


def test_leaving_early_closes_the_chosen_model() -> None:
    model = scripted("a", ["one", 1000.0, call("never")])

    async def leave() -> None:
        async with FallbackModel(model).stream(REQUEST) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta):
                    break

    run_virtual(leave())


def test_an_empty_answer_is_no_answer() -> None:
    with pytest.raises(StreamTruncated):
        run_virtual(say(FallbackModel(scripted("a", [CUT]))))


def messages_of(request: ModelRequest, settings: Settings) -> list[dict[str, JSON]]:
    messages = build_chat_body(request, settings)["messages"]
    assert isinstance(messages, list)
    return [message for message in messages if isinstance(message, dict)]

"""What a run does about a turn that says nothing or a request that is refused for a while: it asks again, and tells."""

import asyncio
from collections.abc import Sequence

import pytest

from flowkit import Agent, AgentResult, FallbackModel, ModelError, OpenAIModel, ScriptedModel, tool
from flowkit.events import Event, TurnFinished, TurnRetried
from flowkit.messages import Usage
from flowkit.models.base import CallDelta, Delta, FinishDelta, ProviderDelta, ThinkingDelta
from flowkit.models.scripted import Script
from flowkit.testing import call, run_virtual
from tests import server


@tool(effect="read")
def look(q: str) -> str:
    """Look something up."""
    return "seen"


def watch(agent: Agent[str]) -> tuple[AgentResult[str], list[Event]]:
    """The result of a run and its events."""

    async def go() -> tuple[AgentResult[str], list[Event]]:
        run = agent.start("hi")
        return await run.wait(), [event async for event in run.watch()]

    return run_virtual(go())


def run(script: Sequence[Script]) -> tuple[AgentResult[str], list[Event]]:
    return watch(Agent(ScriptedModel(script), tools=[look]))


SILENT: dict[str, list[Delta | str]] = {
    "nothing": [FinishDelta("stop")],
    "white space": ["\n \t", FinishDelta("stop")],
    "thinking alone": [ThinkingDelta("I should look"), FinishDelta("stop")],
    "a call without a name": [FinishDelta("tool_calls")],
    "what only the server understands": [ProviderDelta("reasoning", {}), FinishDelta("stop")],
    "a word that isn't known": [FinishDelta("unknown", wire="bored")],
}


@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT)
def test_turn_that_says_nothing_is_asked_for_again(silent: list[Delta | str]) -> None:
    result, events = run([silent, "Here I am."])
    assert (result.status, result.output) == ("done", "Here I am.")
    retried = [event for event in events if isinstance(event, TurnRetried)]
    assert [(event.turn, event.attempt, event.delay_s) for event in retried] == [(1, 1, 0)]
    assert "said nothing" in retried[0].error
    assert [message.to_json()["role"] for message in result.messages] == ["user", "assistant"]


@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT)
def test_turn_that_says_nothing_behind_a_result_is_asked_for_again(silent: list[Delta | str]) -> None:
    result, _ = run([[call("look", q="1")], silent, silent, "Here I am."])
    assert (result.status, result.output, len(result.calls)) == ("done", "Here I am.", 1)


def test_model_that_never_says_anything_fails_the_run() -> None:
    result, events = run([""] * 3)
    assert (result.status, result.output_or_none) == ("failed", None)
    assert "said nothing" in str(result.error)
    assert [event.reason for event in events if isinstance(event, TurnFinished)] == ["error"] * 3


def test_model_behind_another_is_asked_when_that_says_nothing() -> None:
    silent, spare = ScriptedModel([""]), ScriptedModel(["Here I am."])
    assert watch(Agent(FallbackModel(silent, spare)))[0].output == "Here I am."


def test_answer_with_nothing_but_a_call_that_was_cut_is_asked_for_again() -> None:
    cut: list[Delta | str] = ["I look.", CallDelta(0, "a", "look", '{"q"'), FinishDelta("unknown", wire="incomplete")]
    result, _ = run([cut, "Here I am."])
    assert result.output == "Here I am."


def test_what_was_asked_for_in_vain_counts_as_spent() -> None:
    spent = Usage(10, 5)
    result, _ = run([[spent], [spent, "Here I am."]])
    assert result.usage == spent + spent


def run_at_server(
    *script: server.Reply, attempts: int = 3, max_retries: int = 0
) -> tuple[AgentResult[str], list[Event], list[float]]:
    with server.ScriptedServer(script) as scripted:
        model = OpenAIModel("m", base_url=scripted.base_url, api_key="any", max_retries=max_retries)
        result, events = watch_for_real(Agent(model, attempts=attempts))
        return result, events, [request.at for request in scripted.requests]


def watch_for_real(agent: Agent[str]) -> tuple[AgentResult[str], list[Event]]:
    async def go() -> tuple[AgentResult[str], list[Event]]:
        run = agent.start("hi")
        return await run.wait(), [event async for event in run.watch()]

    return asyncio.run(go())


def test_each_wait_that_a_server_asks_for_is_told_and_kept() -> None:
    busy = server.error(429, "slow down", retry_after=0.2)
    result, events, times = run_at_server(busy, server.error(503, "busy", retry_after=0.1), server.chat("Yes."))
    assert result.output == "Yes."
    assert [(event.delay_s, event.attempt) for event in events if isinstance(event, TurnRetried)] == [
        (0.2, 1),
        (0.1, 2),
    ]
    assert times[1] - times[0] >= 0.2
    assert times[2] - times[1] >= 0.1


@pytest.mark.parametrize(("attempts", "max_retries", "asked"), [(1, 0, 1), (1, 2, 3), (3, 0, 3), (3, 1, 2)])
def test_requests_that_are_refused_are_repeated_max_retries_times_or_as_attempts_allow(
    attempts: int, max_retries: int, asked: int
) -> None:
    busy = server.error(503, "busy", retry_after=0.01)
    result, _, times = run_at_server(*[busy] * 5, attempts=attempts, max_retries=max_retries)
    assert (result.status, len(times)) == ("failed", asked)


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_asks_for_more_than_a_minute_ends_the_run_at_once(status: int) -> None:
    result, events, times = run_at_server(
        server.error(status, "later", retry_after=61), server.chat("Yes."), max_retries=5
    )
    assert (result.status, len(times)) == ("failed", 1)
    assert "asks to wait 61 s" in str(result.error)
    assert isinstance(result.error, ModelError)
    assert result.error.retry_after_s == 61
    assert not [event for event in events if isinstance(event, TurnRetried)]

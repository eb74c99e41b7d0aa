"""An agent on a real HTTP server: the classic bugs of hand-written loops, and what a run does when a server fails."""

import time
from collections.abc import Callable

import pytest

from flowkit import Agent, ModelError, OpenAIModel, tool
from flowkit.agent import AgentResult
from tests.server import CUT, Reply, ScriptedServer, SentRequest, call, chat, error, responses

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@tool(name="calendar.read", effect="read")
def read_calendar(day: str) -> str:
    """The day's dates."""
    return f"nothing on {day}"


@tool(effect="write")
def book(day: str) -> str:
    """Book a day."""
    RAN.append(day)
    return f"{day} is booked"


def run(*script: Reply, **settings: object) -> tuple[AgentResult[str], list[SentRequest]]:
    """A run against this script, and the requests that it made."""
    with ScriptedServer(script) as server:
        model = OpenAIModel("m", base_url=server.base_url, **settings)  # pyright: ignore[reportArgumentType]
        result = Agent(model, tools=[read_calendar, book], cache=False).run_sync("Am I free?")
        return result, server.requests


@pytest.mark.parametrize(("say", "api"), [(chat, "chat"), (responses, "responses")])
def test_a_dotted_name_never_travels_and_always_comes_back(say: Callable[..., Reply], api: str) -> None:
    """Case T17: servers answer 400 to the dot."""
    result, [first, second] = run(say(call("calendar_read", day="Monday")), say("You are."), api=api)
    assert "calendar.read" not in str(first.body) + str(second.body)
    assert result.calls[0].call.name == "calendar.read"
    assert "nothing on Monday" in str(second.body)


def test_a_run_goes_on_for_as_many_rounds_as_it_takes() -> None:
    days = ("Monday", "Tuesday", "Friday")
    result, requests = run(*(chat(call("calendar_read", day=day)) for day in days), chat("All free."))
    assert (result.output, len(requests)) == ("All free.", 4)


def test_an_unknown_tool_is_told_and_the_run_goes_on() -> None:
    result, [_, second] = run(chat(call("no_such_tool")), chat("Sorry."))
    assert result.output == "Sorry."
    assert "there is no tool" in second.body["messages"][-1]["content"]


def test_a_server_that_asks_to_wait_is_asked_again_after_that_time() -> None:
    result, [first, second] = run(error(429, "slow down", retry_after=0.3), chat("Yes."), max_retries=0)
    assert result.output == "Yes."
    assert second.at - first.at >= 0.3


def test_a_cut_answer_is_asked_for_again_and_its_write_runs_once() -> None:
    """The call was complete, but its turn had not ended: only the second answer's may run."""
    booking = call("book", day="Monday")
    result, requests = run(chat(booking, CUT), chat(booking), chat("Booked."))
    assert (result.output, len(requests)) == ("Booked.", 3)
    assert RAN == ["Monday"]


def test_a_refused_key_ends_the_run_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(ModelError, match="refused the key"):
        run(error(401, "bad key"), api_key="sk-wrong")
    assert time.monotonic() - began < 5

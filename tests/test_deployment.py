"""What deployments set for their models, over every interface alike: keys, headers, clients, times."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from flowkit import Agent, AnthropicModel, ConfigurationError, ModelError, OpenAIModel, Timeout
from flowkit.messages import UserMessage
from flowkit.models.base import ModelRequest, TextDelta
from tests.bodies import anthropic, chat, chunk, responses
from tests.server import Reply, ScriptedServer, error, replay

Make = Callable[..., OpenAIModel | AnthropicModel]


def chat_model(base_url: str, **settings: Any) -> OpenAIModel:
    settings = {"api_key": "sk-1", "max_retries": 0, **settings}
    return OpenAIModel("m", base_url=base_url, **settings)


def responses_model(base_url: str, **settings: Any) -> OpenAIModel:
    return chat_model(base_url, api="responses", **settings)


def anthropic_model(base_url: str, **settings: Any) -> AnthropicModel:
    settings = {"api_key": "sk-1", "max_retries": 0, **settings}
    return AnthropicModel("claude-x", base_url=base_url, **settings)


HELLO: dict[Make, bytes] = {
    chat_model: chat({"content": "Hello"}, finish="stop"),
    responses_model: responses(("output_text.delta", {"output_index": 0, "delta": "Hello"})),
    anthropic_model: anthropic({"type": "text_delta", "text": "Hello"}),
}
for_each_interface = pytest.mark.parametrize("make", list(HELLO), ids=["chat", "responses", "anthropic"])


def hello(make: Make, **reply: Any) -> Reply:
    return replay(HELLO[make], **reply)


def key_of(headers: Mapping[str, str]) -> str:
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


async def ask(model: OpenAIModel | AnthropicModel, data: object = None) -> str:
    request = ModelRequest((UserMessage("Hi"),), data=data)
    async with model.stream(request) as deltas:
        return "".join([delta.text async for delta in deltas if isinstance(delta, TextDelta)])


async def ask_each(model: OpenAIModel | AnthropicModel, *data: object) -> list[str]:
    return [await ask(model, one) for one in data]


@for_each_interface
def test_a_key_from_a_function_is_renewed_without_a_new_connection(make: Make) -> None:
    keys = iter(["sk-1", "sk-2", "sk-3"])

    async def renewed() -> str:
        return next(keys)

    with ScriptedServer([hello(make)] * 3) as server:
        assert asyncio.run(ask_each(make(server.base_url, api_key=renewed), 1, 2, 3)) == ["Hello"] * 3
        assert [key_of(request.headers) for request in server.requests] == ["sk-1", "sk-2", "sk-3"]
        assert len({request.connection for request in server.requests}) == 1


@for_each_interface
def test_a_plain_function_gives_the_key_and_its_fault_is_told(make: Make) -> None:
    def broken() -> str:
        raise OSError("no token service")

    with ScriptedServer([hello(make)]) as server:
        assert asyncio.run(ask(make(server.base_url, api_key=lambda: "sk-now"))) == "Hello"
        assert key_of(server.requests[0].headers) == "sk-now"
        with pytest.raises(ModelError, match="api_key= raised OSError: no token service"):
            asyncio.run(ask(make(server.base_url, api_key=broken)))


@for_each_interface
def test_headers_may_be_those_of_the_run(make: Make) -> None:
    def headers(request: ModelRequest) -> dict[str, str]:
        return {"x-tenant": str(request.data)}

    with ScriptedServer([hello(make)] * 2) as server:
        asyncio.run(ask_each(make(server.base_url, headers=headers), "red", "blue"))
        assert [request.headers["x-tenant"] for request in server.requests] == ["red", "blue"]
        assert len({request.connection for request in server.requests}) == 1


@for_each_interface
def test_headers_may_be_awaited(make: Make) -> None:
    async def headers(request: ModelRequest) -> dict[str, str]:
        return {"x-turn": str(request.turn)}

    with ScriptedServer([hello(make)]) as server:
        Agent(make(server.base_url, headers=headers)).run_sync("Hi")
        assert server.requests[0].headers["x-turn"] == "1"


@for_each_interface
def test_a_client_of_the_users_own_is_used_and_stays_open(make: Make) -> None:
    seen: list[str] = []

    async def note(request: httpx2.Request) -> None:
        seen.append(request.url.path)

    async def run(base_url: str) -> bool:
        async with httpx2.AsyncClient(event_hooks={"request": [note]}) as client:
            model = make(base_url, http_client=client)
            await ask(model)
            await model.aclose()
            return client.is_closed

    with ScriptedServer([hello(make)]) as server:
        assert asyncio.run(run(server.base_url)) is False
        assert seen == [server.requests[0].path]


@for_each_interface
def test_a_function_makes_a_client_for_each_loop_and_it_is_closed_with_it(make: Make) -> None:
    made: list[httpx2.AsyncClient] = []

    def make_client() -> httpx2.AsyncClient:
        made.append(httpx2.AsyncClient())
        return made[-1]

    with ScriptedServer([hello(make)] * 2) as server:
        agent = Agent(make(server.base_url, http_client=make_client))
        assert [agent.run_sync("Hi").output, agent.run_sync("Hi").output] == ["Hello", "Hello"]
    assert [client.is_closed for client in made] == [True, True]


@for_each_interface
def test_something_else_in_the_clients_place_is_named(make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"http_client is str, expected an httpx2\.AsyncClient"):
        asyncio.run(ask(make("http://127.0.0.1:1/v1", http_client="proxy")))


@for_each_interface
def test_the_first_byte_may_take_longer_than_the_next(make: Make) -> None:
    slow_start = Reply((0.4, HELLO[make]))
    with ScriptedServer([slow_start]) as server:
        times = Timeout(connect=5, first_byte=20, between=0.2)
        assert asyncio.run(ask(make(server.base_url, timeout=times))) == "Hello"


@for_each_interface
def test_a_first_byte_that_does_not_come_ends_the_wait(make: Make) -> None:
    with ScriptedServer([Reply((5.0, HELLO[make]))]) as server:
        with pytest.raises(ModelError, match=r"began no answer within 0\.2 s") as caught:
            asyncio.run(ask(make(server.base_url, timeout=Timeout(first_byte=0.2, between=60))))
        assert caught.value.retryable


@for_each_interface
def test_silence_in_the_middle_ends_the_wait(make: Make) -> None:
    half = len(HELLO[make]) // 2
    with ScriptedServer([Reply((HELLO[make][:half], 5.0, HELLO[make][half:]))]) as server:
        with pytest.raises(ModelError, match=r"said nothing for 0\.2 s in the middle") as caught:
            asyncio.run(ask(make(server.base_url, timeout=Timeout(first_byte=60, between=0.2))))
        assert caught.value.retryable


@for_each_interface
def test_leaving_an_answer_closes_its_connection(make: Make) -> None:
    async def leave(model: OpenAIModel | AnthropicModel) -> None:
        async with model.stream(ModelRequest((UserMessage("Hi"),))) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta):
                    return

    begun = HELLO[make].split(b"Hello")[0].count(b"\n\n") + 1
    events = HELLO[make].split(b"\n\n")
    reply = Reply((b"\n\n".join(events[:begun]) + b"\n\n", 60.0, b"\n\n".join(events[begun:])))
    with ScriptedServer([reply]) as server:
        asyncio.run(leave(make(server.base_url)))
        [request] = server.wait_ended(1)
    assert request.outcome == "left"


@for_each_interface
def test_two_users_at_once_get_their_own_answers(make: Make) -> None:
    def name(request: ModelRequest) -> dict[str, str]:
        return {"x-user": str(request.data)}

    async def both(model: OpenAIModel | AnthropicModel) -> list[str]:
        return list(await asyncio.gather(*(ask(model, user) for user in "abcdef")))

    with ScriptedServer([hello(make, pause=0.01)], cycle=True) as server:
        model = make(server.base_url, headers=name)
        assert asyncio.run(both(model)) == ["Hello"] * 6
        assert sorted(request.headers["x-user"] for request in server.requests) == list("abcdef")


def test_a_timeout_is_checked_and_may_be_a_timedelta() -> None:
    with pytest.raises(ConfigurationError, match="between is 0, expected seconds above 0"):
        Timeout(between=0)
    model = chat_model("http://127.0.0.1:1/v1", timeout=timedelta(minutes=1))
    assert model.server.timeout == Timeout(10, 60, 60)


@for_each_interface
def test_a_key_that_is_refused_is_told_with_its_setting(make: Make) -> None:
    variable = "ANTHROPIC_API_KEY" if make is anthropic_model else "OPENAI_API_KEY"
    with ScriptedServer([error(401, "no")]) as server, pytest.raises(ModelError, match=f"check {variable}"):
        asyncio.run(ask(make(server.base_url)))


def test_another_choice_is_ignored_loudly(caplog: pytest.LogCaptureFixture) -> None:
    second = chunk({"content": "Bye"})
    body = chat({"content": "Hello"}, second.replace(b'"index": 0', b'"index": 1'), finish="stop")
    with ScriptedServer([replay(body)]) as server, caplog.at_level(logging.WARNING):
        assert Agent(chat_model(server.base_url, extra_body={"n": 2})).run_sync("Hi").output == "Hello"
    assert "gave 2 answers, and all but the first are ignored" in caplog.text


def test_a_variant_keeps_the_functions() -> None:
    def key() -> str:
        return "sk"

    model = anthropic_model("http://127.0.0.1:1", api_key=key)
    assert replace(model, max_tokens=5).server.api_key is key
    assert model.server.base_url == "http://127.0.0.1:1/v1"

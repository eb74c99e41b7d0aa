"""A model behind a real HTTP server in its own process."""

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from flowkit.errors import ConfigurationError, ModelError, StreamError, StreamTruncated
from flowkit.messages import ToolSpec, Usage, UserMessage
from flowkit.models.base import (
    CallDelta,
    CallDone,
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    ModelRequest,
    TextDelta,
    UsageDelta,
)
from flowkit.models.openai import OpenAIModel
from tests.server import CUT, Reply, ScriptedServer, call, chat, error, page, replay, responses

REQUEST = ModelRequest((UserMessage("hi"),), tools=(ToolSpec("f", "F."),))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def model_at(server: ScriptedServer, **settings: Any) -> OpenAIModel:
    return OpenAIModel("m", base_url=server.base_url, api_key="sk-test", **settings)


async def ask(model: OpenAIModel) -> list[Delta]:
    async with model.stream(REQUEST) as deltas:
        return [delta async for delta in deltas]


def ask_server(*script: Reply, **settings: Any) -> list[Delta]:
    with ScriptedServer(script) as server:
        return asyncio.run(ask(model_at(server, **settings)))


def refusal_of(*script: Reply, **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as failed:
        ask_server(*script, **{"max_retries": 0, **settings})
    return failed.value


def test_a_chat_stream_becomes_deltas() -> None:
    assert ask_server(chat("Hi", call("f", x=1))) == [
        TextDelta("Hi"),
        CallDelta(0, id="call_0", name="f"),
        CallDelta(0, arguments='{"x": 1}'),
        FinishDelta("tool_calls", wire="tool_calls"),
        UsageDelta(Usage(10, 5)),
        EndDelta(),
    ]


def test_a_stream_of_the_responses_api_becomes_deltas() -> None:
    deltas = ask_server(responses("Hi", call("f", x=1)), api="responses")
    assert TextDelta("Hi") in deltas
    assert CallDelta(slot=1, arguments='{"x": 1}') in deltas
    assert any(isinstance(delta, CallDone) and delta.arguments == '{"x": 1}' for delta in deltas)
    assert isinstance(deltas[-1], EndDelta)


def test_the_request_is_what_the_interface_expects() -> None:
    with ScriptedServer([chat("Hi"), responses("Hi")]) as server:
        asyncio.run(ask(model_at(server, temperature=0.5)))
        asyncio.run(ask(model_at(server, api="responses")))
        first, second = server.requests
    assert (first.path, second.path) == ("/v1/chat/completions", "/v1/responses")
    assert first.headers["authorization"] == "Bearer sk-test"
    assert first.body["messages"] == [{"role": "user", "content": "hi"}]
    assert first.body["tools"][0]["function"]["name"] == "f"
    assert (first.body["temperature"], first.body["stream"]) == (0.5, True)
    assert second.body["input"] == [{"role": "user", "content": "hi"}]
    assert second.body["tools"][0]["name"] == "f"


def test_deltas_come_as_they_are_sent() -> None:
    """Not when the answer has ended: the server sends each word only after the one before was heard."""
    with ScriptedServer([chat("one", math.inf, "two", math.inf, "three")]) as server:

        async def listen() -> list[str]:
            heard: list[str] = []
            async with model_at(server).stream(REQUEST) as deltas:
                async for delta in deltas:
                    if isinstance(delta, TextDelta):
                        heard.append(delta.text)
                        await asyncio.to_thread(server.go_on)
            return heard

        assert asyncio.run(listen()) == ["one", "two", "three"]


def test_the_loop_stays_free_while_the_server_is_silent() -> None:
    """The classic bug: a blocking client in async code."""
    with ScriptedServer([chat(0.3, "late")]) as server:

        async def count() -> int:
            ticks = 0
            asking = asyncio.create_task(ask(model_at(server)))
            while not asking.done():
                ticks += 1
                await asyncio.wait([asking], timeout=0.01)
            return ticks

        assert asyncio.run(count()) > 5


def test_equal_servers_share_one_connection() -> None:
    with ScriptedServer({"a": [chat("from a")], "b": [chat("from b")]}) as server:

        async def both() -> None:
            for name in ("a", "b"):
                await ask(replace(model_at(server), model=name))

        asyncio.run(both())
        requests = server.requests
    assert [request.body["model"] for request in requests] == ["a", "b"]
    assert requests[0].connection == requests[1].connection


def test_connections_are_closed_with_their_loop() -> None:
    with ScriptedServer([chat("a"), chat("b")]) as server:

        async def look() -> int:
            await ask(model_at(server))
            return server.open_connections

        assert asyncio.run(look()) == 1
        assert server.wait_connections(0) == 0
        asyncio.run(look())  # another loop, another client
        assert server.wait_connections(0) == 0


def test_aclose_closes_at_once_and_the_model_still_works() -> None:
    with ScriptedServer([chat("a"), chat("b")]) as server:

        async def close_between() -> int:
            model = model_at(server)
            await ask(model)
            await model.aclose()
            closed = server.wait_connections(0)
            await ask(model)
            return closed

        assert asyncio.run(close_between()) == 0
        assert len(server.requests) == 2


def test_leaving_early_closes_the_stream() -> None:
    with ScriptedServer([chat("one", 30.0, "two")]) as server:

        async def leave() -> float:
            async with model_at(server).stream(REQUEST) as deltas:
                async for _ in deltas:
                    break
            return time.monotonic()

        began = time.monotonic()
        assert asyncio.run(leave()) - began < 60
        [request] = server.wait_ended(1)
    assert request.outcome == "left"


def test_cancelling_closes_the_stream() -> None:
    with ScriptedServer([chat("one", 30.0, "two")]) as server:

        async def cancel() -> None:
            first = asyncio.Event()

            async def listen() -> None:
                async with model_at(server).stream(REQUEST) as deltas:
                    async for _ in deltas:
                        first.set()

            listening = asyncio.create_task(listen())
            async with asyncio.timeout(5):
                await first.wait()
            listening.cancel()
            await asyncio.wait([listening])
            assert listening.cancelled()

        asyncio.run(cancel())
        [request] = server.wait_ended(1)
    assert request.outcome == "left"


def test_a_cut_body_is_an_error_and_never_an_end() -> None:
    """The package lets the transport's own error through."""
    heard: list[Delta] = []
    with ScriptedServer([chat("Hi", call("f", x=1), CUT)]) as server:

        async def listen() -> None:
            async with model_at(server).stream(REQUEST) as deltas:
                async for delta in deltas:
                    heard.append(delta)

        with pytest.raises(StreamTruncated, match="broke in the middle") as failed:
            asyncio.run(listen())
    assert failed.value.retryable
    assert heard[0] == TextDelta("Hi")


def test_a_body_that_just_ends_lacks_its_end() -> None:
    deltas = ask_server(chat("Hi", finish="", usage=None, done=False))
    assert deltas == [TextDelta("Hi")]


def test_a_web_page_is_no_answer() -> None:
    refused = refusal_of(page())
    assert isinstance(refused, StreamError)
    assert "answered with a web page instead of a stream: check the base URL" in str(refused)
    assert not refused.retryable


def test_json_is_no_stream() -> None:
    deltas = ask_server(page('{"error": {"message": "no such route"}}', content_type="application/json"))
    [delta] = deltas
    assert isinstance(delta, ErrorDelta)
    assert "no such route" in str(delta.error)


def test_bytes_may_be_cut_anywhere() -> None:
    [body] = [b"".join(piece for piece in chat("Grüße, 서울").pieces if isinstance(piece, bytes))]
    deltas = ask_server(replay(body, cuts=range(1, len(body)), pause=0.0))
    assert TextDelta("Grüße, 서울") in deltas


@pytest.mark.parametrize(
    ("reply", "sentence", "retryable"),
    [
        (error(401, "Incorrect API key"), "127.0.0.1 refused the key (401): check OPENAI_API_KEY or api_key=", False),
        (error(403, "not yours"), "127.0.0.1 doesn't let this key use 'm' (403): not yours", False),
        (error(404, "The model `m` does not exist"), "127.0.0.1 has no model 'm' (404): The model `m` does not", False),
        (error(404, "Not Found"), "isn't there (404): check the base URL, which often ends in /v1", False),
        (page("<html>", status=404), "isn't there (404): check the base URL", False),
        (error(400, "too long"), "127.0.0.1 refused the request (400): too long", False),
        (error(429, "slow down", retry_after=7), "127.0.0.1 got too many requests (429): slow down", True),
        (error(429, "pay", code="insufficient_quota"), "the account at 127.0.0.1 has no credit left (429): pay", False),
        (error(503, "overloaded"), "127.0.0.1 failed (503): overloaded", True),
        (page("<html>Bad gateway</html>", status=502), "127.0.0.1 failed (502): no reason given", True),
    ],
)
def test_a_refusal_is_one_sentence(reply: Reply, sentence: str, retryable: bool) -> None:
    refused = refusal_of(reply)
    assert sentence in str(refused)
    assert "\n" not in str(refused)
    assert (refused.status, refused.retryable) == (reply.status, retryable)


def test_the_time_that_a_server_asks_for_is_told() -> None:
    assert refusal_of(error(429, "slow down", retry_after=7)).retry_after_s == 7


def test_a_model_repeats_nothing_by_itself() -> None:
    """Who waits has to tell of it, and that is the run."""
    with ScriptedServer([error(429, "slow down", retry_after=0.05), chat("Hi")]) as server:
        with pytest.raises(ModelError, match="slow down") as failed:
            asyncio.run(ask(model_at(server, max_retries=5)))
        assert len(server.requests) == 1
    assert (failed.value.retryable, failed.value.max_retries) == (True, 5)


@pytest.mark.parametrize(("told", "retryable"), [("false", False), ("true", True)])
def test_a_server_may_say_whether_asking_again_helps(told: str, retryable: bool) -> None:
    status = 503 if told == "false" else 400
    reply = Reply((b'{"message": "no"}',), status, {"content-type": "application/json", "x-should-retry": told})
    assert refusal_of(reply).retryable is retryable


def test_a_begun_answer_is_never_repeated() -> None:
    with ScriptedServer([chat("Hi", CUT), chat("again")]) as server:
        with pytest.raises(StreamTruncated):
            asyncio.run(ask(model_at(server)))
        assert len(server.requests) == 1


def test_no_network_is_one_sentence() -> None:
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(ModelError, match=r"can't reach 127\.0\.0\.1 \(.+\): check the network") as failed:
        asyncio.run(ask(model))
    assert failed.value.retryable


def test_silence_has_an_end() -> None:
    late = chat("one", 30.0, "two")
    with ScriptedServer([late]) as server, pytest.raises(StreamError, match=r"said nothing for 0\.5 s in the middle"):
        asyncio.run(ask(model_at(server, timeout=0.5)))


def test_comments_do_not_hide_silence() -> None:
    """Case S01: gateways send comments for as long as the model behind them is stuck."""
    comments = [piece for _ in range(100) for piece in (0.05, b": PROCESSING\n\n")]
    with ScriptedServer([chat("one", *comments)]) as server, pytest.raises(StreamError, match=r"nothing for 0\.5 s"):
        asyncio.run(ask(model_at(server, timeout=0.5)))


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([chat("Hi")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")
        asyncio.run(ask(OpenAIModel("m")))
        [request] = server.requests
    assert request.headers["authorization"] == "Bearer sk-from-environment"


def test_a_local_server_needs_no_key() -> None:
    with ScriptedServer([chat("Hi"), error(401, "no")]) as server:
        model = OpenAIModel("m", base_url=server.base_url)
        assert asyncio.run(ask(model))[0] == TextDelta("Hi")
        with pytest.raises(ModelError, match=r"needs a key \(401\): set OPENAI_API_KEY or give api_key="):
            asyncio.run(ask(model))


def test_neither_key_nor_address_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError) as failed:
        OpenAIModel("m")
    assert str(failed.value) == "no model server: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own"


def test_a_base_url_that_is_no_web_address_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="has to begin with http://") as failed:
        OpenAIModel("m", base_url="me:secret@gateway.example/v1", api_key="k")
    assert "secret" not in str(failed.value)


def test_what_cannot_be_said_of_thinking_is_an_error_when_the_model_is_made() -> None:
    with pytest.raises(ConfigurationError, match="doesn't think"):
        OpenAIModel("gpt-4.1", api_key="sk-test", thinking=True)


def test_the_key_is_nowhere_to_be_seen() -> None:
    model = OpenAIModel("m", base_url="https://me:pass@gateway.example/v1?k=1", api_key="sk-secret", headers={"x": "y"})
    assert "sk-secret" not in repr(model)
    assert model.source == "chat https://gateway.example/v1 m"


def test_headers_reach_the_server() -> None:
    with ScriptedServer([chat("Hi")]) as server:
        asyncio.run(ask(model_at(server, headers={"x-title": "shop"})))
        [request] = server.requests
    assert request.headers["x-title"] == "shop"


def test_a_header_of_the_user_takes_the_place_of_the_packages_in_whatever_case() -> None:
    given = {"USER-AGENT": "shop/1", "authorization": "Basic c2hvcA=="}
    with ScriptedServer([chat("Hi")]) as server:
        asyncio.run(ask(model_at(server, headers=given)))
        [request] = server.requests
    assert (request.headers["user-agent"], request.headers["authorization"]) == ("shop/1", "Basic c2hvcA==")


def test_half_a_character_in_a_message_does_not_break_the_request() -> None:
    async def ask_half(model: OpenAIModel) -> None:
        async with model.stream(ModelRequest((UserMessage("cut \ud83d"),))) as deltas:
            async for _ in deltas:
                pass

    with ScriptedServer([chat("Hi")]) as server:
        asyncio.run(ask_half(model_at(server)))
        [request] = server.requests
    assert request.body["messages"] == [{"role": "user", "content": "cut \ufffd"}]


def test_azures_older_addresses_name_the_deployment() -> None:
    with ScriptedServer([chat("Hi")]) as server:
        model = OpenAIModel(
            "gpt-4.1", base_url=server.base_url.removesuffix("/v1"), api_key="k", api_version="2024-10-21"
        )
        asyncio.run(ask(model))
        [request] = server.requests
    assert request.path == "/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == "k"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_query_of_the_base_url_stays_behind_the_path(slash: str) -> None:
    """A gateway's address may name a version or a tenant there."""
    with ScriptedServer([chat("Hi"), chat("Hi")]) as server:
        address = f"{server.base_url}{slash}?api-version=2&tenant=a%20b"
        asyncio.run(ask(OpenAIModel("m", base_url=address, api_key="k")))
        azure = address.replace("/v1", "")
        asyncio.run(ask(OpenAIModel("gpt-4.1", base_url=azure, api_key="k", api_version="2024-10-21")))
        plain, deployed = server.requests
    assert plain.path in (f"/v1/chat/completions?api-version=2&tenant=a{space}b" for space in ("+", "%20"))
    assert deployed.path.startswith("/openai/deployments/gpt-4.1/chat/completions?")
    assert parse_qs(urlsplit(deployed.path).query) == {"api-version": ["2024-10-21"], "tenant": ["a b"]}


def test_many_streams_at_once_each_get_their_own_answer() -> None:
    count = 40
    with ScriptedServer({f"m{i}": [chat(0.05, f"answer {i}")] for i in range(count)}) as server:

        async def all_at_once() -> list[list[Delta]]:
            tasks: list[Coroutine[Any, Any, list[Delta]]] = [
                ask(replace(model_at(server), model=f"m{i}")) for i in range(count)
            ]
            return await asyncio.gather(*tasks)

        answers = asyncio.run(all_at_once())
    assert [deltas[0] for deltas in answers] == [TextDelta(f"answer {i}") for i in range(count)]


@pytest.mark.slow
def test_the_openai_package_waits_until_a_model_is_made() -> None:
    code = (
        "import sys, flowkit, flowkit.models.openai as m\n"
        "assert 'openai' not in sys.modules, 'imported too soon'\n"
        "m.OpenAIModel('m', api_key='k')\n"
        "assert 'openai' in sys.modules, 'imported within the first request'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("model", "base_url", "settings", "api"),
    [
        ("gpt-5.6", "https://api.openai.com/v1", {}, "responses"),
        ("gpt-5.6", "https://api.openai.com/v1", {"api": "chat"}, "chat"),
        ("gpt-4.1", "https://api.openai.com/v1", {}, "chat"),
        ("gpt-5-search-api", "https://api.openai.com/v1", {}, "chat"),
        ("gpt-5.6", "https://gateway.example/v1", {}, "chat"),
        ("gpt-4.1", "https://gateway.example/v1", {"api": "responses"}, "responses"),
    ],
)
def test_the_models_of_openai_that_think_are_asked_over_responses(
    model: str, base_url: str, settings: dict[str, Any], api: str
) -> None:
    assert OpenAIModel(model, base_url=base_url, api_key="k", **settings).settings.api == api


def test_a_gateway_that_the_environment_names_is_asked_over_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert OpenAIModel("gpt-5.6").settings.api == "chat"


def test_a_variant_at_a_gateway_is_asked_over_chat() -> None:
    model = OpenAIModel("gpt-5.6", api_key="k")
    assert replace(model, base_url="https://gateway.example/v1").settings.api == "chat"


def test_a_variant_with_another_model_gets_that_models_interface() -> None:
    model = OpenAIModel("gpt-5.6", api_key="k")
    assert replace(model, model="gpt-4.1").settings.api == "chat"


def test_deepseek_is_sent_no_schema_unless_it_is_asked_for() -> None:
    model = OpenAIModel("deepseek-v4", base_url="https://api.deepseek.com", api_key="k")
    assert not model.settings.json_schema
    assert replace(model, json_schema=True).settings.json_schema
    assert OpenAIModel("deepseek-v4", base_url="https://gateway.example/v1").settings.json_schema

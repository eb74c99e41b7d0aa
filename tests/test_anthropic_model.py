"""Runs with a Claude behind a Messages API that refuses what the vendor's refuses."""

import asyncio
import base64
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowkit import (
    Agent,
    AnthropicModel,
    ConfigurationError,
    FallbackModel,
    File,
    Image,
    Limits,
    ModelError,
    OpenAIModel,
    Price,
    Recorder,
    Replayer,
    Router,
    ScriptedModel,
    Text,
    tool,
)
from flowkit.messages import AssistantMessage, ToolMessage, UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.default import make_model
from flowkit.models.scripted import call as scripted_call
from tests.anthropic_server import Answer, AnthropicServer, Refusal, says, thinks, uses
from tests.command import make_command
from tests.server import ScriptedServer, call, chat

GENERATIONS = ("claude-sonnet-4-5", "claude-opus-4-6", "claude-sonnet-5")
"""One that thinks within a budget, one that does either, one that only adapts."""


@tool(effect="read")
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"sunny in {city}"


@tool(effect="read")
def get_time() -> str:
    """Get the time."""
    return ""


def make(server: AnthropicServer, model: str = "claude-sonnet-5", **settings: Any) -> AnthropicModel:
    return AnthropicModel(model, base_url=server.base_url, api_key="sk-test", max_retries=0, **settings)


def types(message: dict[str, Any]) -> list[str]:
    return [block["type"] for block in message["content"]]


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_tool_loop_with_thinking_is_taken_by_the_vendor(name: str) -> None:
    script = [
        [
            thinks("Weather first."),
            says("Let me look."),
            uses("get_weather", "toolu_1", city="Seoul"),
            uses("get_time"),
        ],
        [thinks("And Busan."), uses("get_weather", "toolu_2", city="Busan")],
        [thinks(""), says("Sunny in both.")],
        [says("You are welcome.")],
    ]
    with AnthropicServer(script) as server:
        agent = Agent(make(server, name, thinking=True), tools=[get_weather, get_time], instructions="Be brief.")
        result = agent.run_sync("Where is it sunny?")
        again = agent.run_sync("Thanks.", history=result.messages)
        assert server.refused == []
    assert (result.output, again.output) == ("Sunny in both.", "You are welcome.")
    loop, last = server.bodies[2]["messages"], server.bodies[3]["messages"]
    assert types(loop[1]) == ["thinking", "text", "tool_use", "tool_use"]
    assert types(loop[2]) == ["tool_result", "tool_result"]
    assert types(loop[3]) == ["thinking", "tool_use"]
    assert last[5]["content"][0]["thinking"] == ""
    assert loop[1]["content"][0]["signature"] == server.sign("Weather first.", server.bodies[0])


def test_thinking_is_shown_and_kept() -> None:
    with AnthropicServer([[thinks("One."), thinks("Two."), says("Done.")]]) as server:
        result = Agent(make(server)).run_sync("Go")
    said = result.messages[-1]
    assert isinstance(said, AssistantMessage)
    assert said.thinking == "One.\n\nTwo."


def test_the_key_and_the_version_travel_in_the_vendors_headers() -> None:
    with AnthropicServer([[says("Hi")]]) as server:
        Agent(make(server, betas=["context-1m"], headers={"x-team": "shop"})).run_sync("Go")
        assert server.refused == []
    headers = server.headers[0]
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-test", "2023-06-01")
    assert (headers["anthropic-beta"], headers["x-team"]) == ("context-1m", "shop")
    assert "authorization" not in headers


def test_thinking_between_calls_is_asked_for_where_the_model_needs_it() -> None:
    with AnthropicServer([[says("Hi")], [says("Hi")]]) as server:
        for name in ("claude-sonnet-4-5", "claude-opus-4-6"):
            Agent(make(server, name, thinking=2000), tools=[get_time]).run_sync("Go")
        assert server.refused == []
    assert [headers.get("anthropic-beta") for headers in server.headers] == ["interleaved-thinking-2025-05-14", None]


def test_thinking_of_another_model_stays_behind() -> None:
    with AnthropicServer([[thinks("Hm."), uses("get_time")], [says("Noon.")], [says("Yes.")]]) as server:
        first = Agent(make(server), tools=[get_time]).run_sync("What time is it?")
        Agent(make(server, "claude-opus-4-6", thinking=2000), tools=[get_time]).run_sync(
            "Sure?", history=first.messages
        )
        assert server.refused == []
    assert types(server.bodies[2]["messages"][1]) == ["tool_use"]


def test_a_loop_that_began_without_thinking_goes_on_without_it() -> None:
    """A server that thinks within a budget refuses to begin thinking in the middle of a loop."""
    asked = ScriptedModel([[scripted_call("get_time")]], name="other")
    with AnthropicServer([[says("Noon.")]]) as server:
        claude = make(server, "claude-sonnet-4-5", thinking=2000)
        model = Router(lambda messages, _: claude if isinstance(messages[-1], ToolMessage) else asked)
        result = Agent(model, tools=[get_time]).run_sync("What time is it?")
        assert server.refused == []
    assert result.output == "Noon."
    assert server.bodies[0]["thinking"] == {"type": "disabled"}


def test_a_conversation_moves_to_another_vendor_and_back() -> None:
    script = [[thinks("Hm."), uses("get_time")], [says("Noon.")], [says("Bye.")]]
    with (
        AnthropicServer(script) as server,
        ScriptedServer([chat(call("get_weather", city="Seoul", id="call:1")), chat("Sun.")]) as other,
    ):
        claude = Agent(make(server), tools=[get_time, get_weather])
        gpt = Agent(OpenAIModel("gpt-4.1", base_url=other.base_url, api_key="k"), tools=[get_time, get_weather])
        first = claude.run_sync("What time is it?")
        second = gpt.run_sync("And the weather?", history=first.messages)
        third = claude.run_sync("Bye", history=second.messages)
        assert server.refused == []
        assert [message["role"] for message in other.requests[0].body["messages"]][:3] == ["user", "assistant", "tool"]
    assert (second.output, third.output) == ("Sun.", "Bye.")
    sent = server.bodies[2]["messages"]
    assert types(sent[1]) == ["thinking", "tool_use"]
    used = next(block for message in sent for block in message["content"] if block.get("name") == "get_weather")
    assert used["id"].startswith("call_1_")


def test_a_signature_that_the_server_no_longer_takes_is_left_out_and_the_server_asked_once_more() -> None:
    """https://github.com/anomalyco/opencode/issues/48637"""
    with AnthropicServer([[thinks("Hm."), uses("get_time")], [says("Noon.")], [says("Yes.")]], binds=True) as server:
        model = make(server)
        first = Agent(model, tools=[get_time], instructions="Be brief.").run_sync("What time is it?")
        second = Agent(model, tools=[get_time], instructions="Be kind.").run_sync("Sure?", history=first.messages)
        assert len(server.refused) == 1
    assert second.output == "Yes."
    assert "thinking" not in json.dumps(server.bodies[-1]["messages"])


def test_a_pause_is_gone_on_with() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "sun"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]}
    script = [
        Answer((thinks("I search."), says("A moment. "), search), "pause_turn"),
        [found, says("Sunny.")],
        [says("Yes.")],
    ]
    web = {"type": "web_search_20250305", "name": "web_search"}
    with AnthropicServer(script) as server:
        agent = Agent(make(server, server_tools=[web]))
        result = agent.run_sync("Is it sunny?")
        agent.run_sync("Sure?", history=result.messages)
        assert server.refused == []
    assert result.output == "A moment. Sunny."
    assert (result.usage.input_tokens, result.usage.output_tokens) == (20, 40)
    assert server.bodies[0]["tools"][-1]["name"] == "web_search"
    assert [message["role"] for message in server.bodies[1]["messages"]] == ["user", "assistant"]
    blocks = server.bodies[2]["messages"][1]["content"]
    assert [block["type"] for block in blocks] == [
        "thinking",
        "text",
        "server_tool_use",
        "web_search_tool_result",
        "text",
    ]
    assert blocks[2]["input"] == {"query": "sun"}


def test_pauses_end() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "sun"}}
    with AnthropicServer([Answer((search,), "pause_turn")] * 6) as server:
        with pytest.raises(ModelError, match="paused its answer 6 times"):
            Agent(make(server)).run_sync("Is it sunny?")
        assert len(server.bodies) == 6


def test_a_refusal_is_no_fault_to_retry_and_its_calls_do_not_run() -> None:
    deleted: list[int] = []

    @tool
    def delete(number: int) -> str:
        """Delete a thing."""
        deleted.append(number)
        return "gone"

    details = {"type": "refusal", "category": "cyber", "explanation": "It was blocked."}
    with AnthropicServer([Answer((uses("delete", number=1),), "refusal", details=details)]) as server:
        with pytest.raises(ModelError, match="It was blocked"):
            Agent(make(server), tools=[delete]).run_sync("Delete it")
        assert len(server.bodies) == 1
    assert deleted == []


def test_a_cut_call_never_runs() -> None:
    cut = Answer((uses("get_time"),), "max_tokens")
    with AnthropicServer([cut]) as server:
        result = Agent(make(server), tools=[get_time]).run_sync("What time is it?")
        assert result.status == "limit"
        assert result.calls == ()


def test_media_travel_as_sources() -> None:
    png = base64.b64encode(b"\x89PNG").decode()
    content = (
        Text("Look"),
        Image(f"data:image/png;base64,{png}"),
        Image("https://example.com/a.png"),
        File("a.pdf", data_url=f"data:application/pdf;base64,{png}"),
        File("a.txt", data_url="data:text/plain,caf%C3%A9"),
        File("b", file_id="file_1"),
    )
    with AnthropicServer([[says("Nice")]]) as server:
        Agent(make(server)).run_sync(content)
        assert server.refused == []
    blocks = server.bodies[0]["messages"][0]["content"]
    assert [block.get("source", {}).get("type") for block in blocks] == [
        None,
        "base64",
        "url",
        "base64",
        "text",
        "file",
    ]
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": png}
    assert (blocks[4]["source"]["data"], blocks[3]["title"]) == ("café", "a.pdf")
    assert server.headers[0]["anthropic-beta"] == "files-api-2025-04-14"


def test_cache_writes_are_counted_and_cost_their_own_price() -> None:
    usage = (("cache_read_input_tokens", 1000), ("cache_creation_input_tokens", 2000))
    with AnthropicServer([Answer((says("Hi"),), usage=usage)]) as server:
        model = make(server, price=Price(input=1, output=0, cached=0.1))
        result = Agent(model, limits=Limits(cost_usd=1)).run_sync("Go")
    assert (result.usage.input_tokens, result.usage.cached_tokens, result.usage.cache_write_tokens) == (
        3010,
        1000,
        2000,
    )
    assert result.cost == pytest.approx((10 + 100 + 2500) / 1e6)


def test_a_recorded_run_is_replayed_without_a_server(tmp_path: Path) -> None:
    with AnthropicServer([[thinks("Hm."), uses("get_time")], [says("Noon.")]]) as server:
        recorder = Recorder(make(server, thinking="low", server_tools=[{"type": "x", "name": "x"}]), tmp_path / "run")
        said = Agent(recorder, tools=[get_time]).run_sync("What time is it?")
    replayed = Agent(Replayer(tmp_path / "run"), tools=[get_time]).run_sync("What time is it?")
    assert replayed.output == said.output == "Noon."
    assert "sk-test" not in (tmp_path / "run").read_text()


def test_a_fallback_takes_over_and_signatures_find_their_model() -> None:
    overloaded = Refusal(529, "overloaded_error", "Overloaded")
    with AnthropicServer([overloaded, [thinks("Hm."), uses("get_time")], [says("Noon.")]]) as server:
        model = FallbackModel(make(server, "claude-opus-5-5"), make(server))
        rule = Router(lambda messages, _: model, model)
        result = Agent(rule, tools=[get_time]).run_sync("What time is it?")
        # The second turn is asked of the first model, which must not see the other's signature.
        assert server.refused == []
    assert result.output == "Noon."
    assert [body["model"] for body in server.bodies] == ["claude-opus-5-5", "claude-sonnet-5", "claude-opus-5-5"]


def test_an_overload_is_asked_again_and_told_with_its_number() -> None:
    busy = Refusal(
        529,
        "overloaded_error",
        "Overloaded",
        (("retry-after-ms", "1"), ("anthropic-ratelimit-requests-remaining", "0")),
    )
    with AnthropicServer([busy, [says("Hi")], busy, busy]) as server:
        assert Agent(replace(make(server), max_retries=1)).run_sync("Go").output == "Hi"
        with pytest.raises(ModelError, match="failed \\(529\\): Overloaded") as caught:
            Agent(replace(make(server), max_retries=1)).run_sync("Go")
    assert caught.value.request_id == "req_9"
    assert caught.value.limits == {"anthropic-ratelimit-requests-remaining": "0"}


@pytest.mark.parametrize("address", ["https://gw.example/anthropic", "https://gw.example/anthropic/v1/"])
def test_a_query_of_the_base_url_stays_behind_the_version(address: str) -> None:
    model = AnthropicModel("claude-sonnet-5", base_url=f"{address}?tenant=a", api_key="k")
    assert model.base_url == "https://gw.example/anthropic/v1?tenant=a"


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("claude-opus-4-7", {"temperature": 0.5}, "temperature=0.5"),
        ("claude-sonnet-5", {"extra_body": {"top_k": 5}}, "top_k=5"),
        ("claude-opus-4-7", {"thinking": 2000}, "an effort such as 'low'"),
        ("claude-sonnet-4-5", {"thinking": "low"}, "a number of tokens"),
        ("claude-sonnet-4-5", {"thinking": 500}, "at least 1024"),
        ("claude-sonnet-4-5", {"thinking": 5000, "max_tokens": 4000}, "less than max_tokens"),
        ("claude-sonnet-4-5", {"thinking": True, "temperature": 0.3}, "temperature=0.3"),
        ("claude-fable-5", {"thinking": False}, "can't be turned off"),
        ("claude-3-5-haiku-latest", {"thinking": True}, "doesn't think"),
        ("claude-opus-4-6", {"thinking": "xhigh"}, "low, medium, high, max"),
        ("claude-sonnet-5", {"cache": "2h"}, "cache='2h'"),
        ("claude-sonnet-5", {"base_url": "api.anthropic.com"}, "http://"),
    ],
)
def test_a_setting_that_the_model_does_not_take_is_named_at_once(
    model: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AnthropicModel(model, api_key="k", **settings)


def test_a_forced_call_with_a_budget_names_the_settings() -> None:
    with AnthropicServer([[uses("get_time")], [says("Noon.")]]) as server:
        manual = Agent(make(server, "claude-sonnet-4-5", thinking=2000), tools=[get_time], tool_choice="required")
        with pytest.raises(ConfigurationError, match="tool_choice='required'"):
            manual.run_sync("Go")
        adaptive = Agent(make(server, "claude-opus-4-6", thinking=True), tools=[get_time], tool_choice="required")
        assert adaptive.run_sync("Go").output == "Noon."
        assert server.refused == []
    assert server.bodies[0]["tool_choice"] == {"type": "any"}


def test_tokens_are_counted_by_the_server() -> None:
    with AnthropicServer([]) as server:
        request = ModelRequest((UserMessage("Hello"),))
        assert asyncio.run(count(make(server), request)) > 100
    assert server.bodies[0].keys() == {"model", "messages"}


async def count(model: AnthropicModel, request: ModelRequest) -> int:
    return await model.count_tokens(request)


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Generator[None]:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield


def test_a_name_and_a_key_choose_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    with environment(monkeypatch, ANTHROPIC_API_KEY="k", OPENAI_API_KEY="k"):
        assert isinstance(make_model("claude-sonnet-5"), AnthropicModel)
        assert isinstance(make_model("gpt-4.1"), OpenAIModel)
        assert isinstance(make_model("anthropic/claude-sonnet-5"), OpenAIModel)
        assert isinstance(make_model("claude-sonnet-5", "http://127.0.0.1:1/v1"), OpenAIModel)
    with environment(monkeypatch, OPENAI_BASE_URL="http://127.0.0.1:1/v1"):
        assert isinstance(make_model("claude-sonnet-5"), OpenAIModel)
    with environment(monkeypatch), pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        AnthropicModel("claude-sonnet-5")
    with environment(monkeypatch, ANTHROPIC_AUTH_TOKEN="t"):
        assert AnthropicModel("claude-sonnet-5").server.auth == "bearer"


def test_the_command_asks_a_claude_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text(
        "from flowkit import Agent, DefaultModel, tool\n\n"
        "@tool(effect='read')\ndef get_time() -> str:\n    'Get the time.'\n    return 'noon'\n\n"
        "agent = Agent(DefaultModel(), tools=[get_time])\n"
    )
    flowkit = make_command(tmp_path, monkeypatch)
    with AnthropicServer([[thinks("Hm."), uses("get_time")], [says("It is noon.")], [says("Hello.")]]) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        ended = flowkit("chat", "app.py", "What time is it?", "--model", "claude-sonnet-5")
        monkeypatch.delenv("OPENAI_API_KEY")
        usual = flowkit("chat", "app.py", "Hello?")
        assert server.refused == []
    assert (ended.code, "It is noon." in ended.out) == (0, True)
    assert (usual.code, "Hello." in usual.out) == (0, True)
    assert [body["model"] for body in server.bodies] == ["claude-sonnet-5", "claude-sonnet-5", "claude-haiku-4-5"]

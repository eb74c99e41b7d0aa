"""Conversations that go on: whatever a server refused, the next request can be taken."""

import asyncio
import http.server
import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, Limits, ModelError, OpenAIModel, ScriptedModel, tool
from flowkit.agent.outputs import MAX_TRIES, OutputInvalid, drop_thinking, find_json, make_output
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.history import LEFT_OUT, mend, read_history, shorten_results
from flowkit.journal import Journal
from flowkit.messages import (
    AssistantMessage,
    File,
    Image,
    Message,
    RequestedCall,
    SystemMessage,
    Text,
    ToolMessage,
    UserMessage,
    text_of,
)
from flowkit.models.wire.request_fields import NO_ANSWER, alternate
from flowkit.testing import call, run_virtual
from tests import server as scripted

Rule = Callable[[dict[str, Any]], tuple[int, str] | None]
"""Why a body is refused: status and words; None for one that is taken."""


@contextmanager
def picky(rule: Rule, replies: Sequence[scripted.Reply]) -> Generator[tuple[str, list[dict[str, Any]]]]:
    """A server that refuses by a rule, and answers the others in turn; its address, and the bodies it was sent."""
    left, bodies = list(replies), list[dict[str, Any]]()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append(body)
            refused = rule(body)
            if refused is None:
                status, kind = 200, "text/event-stream"
                out = b"".join(piece for piece in left.pop(0).pieces if isinstance(piece, bytes))
            else:
                status, kind, out = (
                    refused[0],
                    "application/json",
                    json.dumps({"error": {"message": refused[1]}}).encode(),
                )
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1", bodies
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def model_at(url: str, **settings: Any) -> OpenAIModel:
    return OpenAIModel("m", base_url=url, api_key="any", max_retries=0, **settings)


@tool(effect="read")
def look(q: str) -> str:
    """Look something up."""
    return "seen " * 1000


@tool(effect="read")
def peek(q: str) -> str:
    """Look at one thing."""
    return "odd"


# Requests that were refused for good


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_first_request_that_was_refused_leaves_the_session_as_it_was(status: int, tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> tuple[int, str] | None:
        return (status, "not this word") if "forbidden" in str(body["messages"]) else None

    journal = Journal(tmp_path / "journal")
    with picky(rule, [scripted.chat("Hello"), scripted.chat("Fine")]) as (url, bodies), closing(journal):
        agent = Agent(model_at(url), journal=journal)
        agent.run_sync("hi", session="s", user="ann")
        with pytest.raises(ModelError, match="the conversation stays as it was") as failed:
            agent.run_sync("forbidden", session="s", user="ann")
        assert [message.to_json()["role"] for message in failed.value.result.messages] == ["user", "assistant"]  # pyright: ignore
        assert agent.run_sync("and now?", session="s", user="ann").output == "Fine"
    assert [message["content"] for message in bodies[-1]["messages"]] == ["hi", "Hello", "and now?"]


def test_first_request_that_found_nobody_stays_in_the_conversation() -> None:
    model = ScriptedModel([[ModelError("busy", status=503, retryable=True)]] * 3)
    result = run_virtual(_wait(Agent(model), "hi"))
    assert [message.to_json()["role"] for message in result.messages] == ["user"]


async def _wait(agent: Agent[str], text: str) -> Any:
    return await agent.start(text).wait()


def test_long_result_that_a_server_refuses_is_shortened_and_its_call_kept() -> None:
    def rule(body: dict[str, Any]) -> tuple[int, str] | None:
        return (400, "prompt is too long") if len(str(body)) > 4000 else None

    with picky(rule, [scripted.chat(scripted.call("look", q="1")), scripted.chat("Fine"), scripted.chat("Still")]) as (
        url,
        bodies,
    ):
        agent = Agent(model_at(url), tools=[look])
        result = agent.run_sync("hi")
        again = agent.run_sync("go on", history=result.messages)
    assert (result.output, again.output, len(bodies)) == ("Fine", "Still", 4)
    kept = next(message for message in result.messages if isinstance(message, ToolMessage))
    assert kept.text.startswith("seen seen")
    assert "the server refused the whole" in kept.text
    assert result.calls[0].value == look("1")


def test_short_result_that_a_server_refuses_is_left_out_and_its_call_kept() -> None:
    def rule(body: dict[str, Any]) -> tuple[int, str] | None:
        return (400, "no such character") if any(m.get("content") == "odd" for m in body["messages"]) else None

    with picky(rule, [scripted.chat(scripted.call("peek", q="1")), scripted.chat("Fine")]) as (url, _):
        result = Agent(model_at(url), tools=[peek]).run_sync("hi")
    kept = next(message for message in result.messages if isinstance(message, ToolMessage))
    assert kept.text.startswith("[left out: the server refused the whole")


def test_result_is_put_back_when_shortening_does_not_help() -> None:
    def rule(body: dict[str, Any]) -> tuple[int, str] | None:
        return (400, "never") if len(body["messages"]) > 1 else None

    replies = [scripted.chat(scripted.call("look", q="1"))]
    with picky(rule, replies) as (url, bodies), pytest.raises(ModelError, match="never") as failed:
        Agent(model_at(url), tools=[look]).run_sync("hi")
    kept = next(m for m in failed.value.result.messages if isinstance(m, ToolMessage))  # pyright: ignore
    assert len(bodies) == 3
    assert "refused" not in kept.text


def test_result_that_a_hook_leaves_out_says_so() -> None:
    model = ScriptedModel([[call("peek", q="1")], "Fine"])

    def forget(messages: Sequence[Message], _: object) -> Sequence[Message]:
        return [message for message in messages if not isinstance(message, ToolMessage)]

    Agent(model, tools=[peek], before_request=forget).run_sync("hi")
    assert [m.text for m in model.requests[-1].messages if isinstance(m, ToolMessage)] == [LEFT_OUT]


_calls = st.lists(st.sampled_from("abcd"), unique=True, max_size=2).map(
    lambda names: tuple(RequestedCall(name, "tool", "{}") for name in names)
)
_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(UserMessage, st.text(max_size=3) | st.just((Text("x"), Image("https://e.org/i.png")))),
    st.builds(SystemMessage, st.text(max_size=3)),
    st.builds(AssistantMessage, text=st.text(max_size=3), calls=_calls),
    st.builds(ToolMessage, st.sampled_from("abcd"), st.just("tool"), st.text(max_size=30)),
)


@given(st.lists(_messages, max_size=8), st.integers(1, 10))
def test_for_every_conversation_shortening_keeps_all_calls_and_roles(history: list[Message], limit: int) -> None:
    shortened = shorten_results(history, "why", limit=limit)
    assert [type(message) for message in shortened] == [type(message) for message in history]
    for before, after in zip(history, shortened, strict=True):
        if isinstance(before, ToolMessage):
            assert isinstance(after, ToolMessage)
            assert after.call_id == before.call_id
            assert after == before or "why" in after.text
        else:
            assert after == before


# Roles that have to alternate


@given(st.lists(_messages, max_size=8))
def test_for_every_conversation_roles_alternate_and_nothing_said_is_lost(history: list[Message]) -> None:
    mended = mend(history, keeps_instructions=True)
    sent = alternate(mended)
    for first, second in pairwise(sent):
        match first, second:
            case (UserMessage(), UserMessage()) | (SystemMessage(), SystemMessage()) | (ToolMessage(), UserMessage()):
                raise AssertionError((first, second))
            case AssistantMessage(calls=()), AssistantMessage():
                raise AssertionError((first, second))
            case _:
                pass
    for message in mended:
        match message:
            case UserMessage(content=content):
                assert any(isinstance(m, UserMessage) and text_of(content) in text_of(m.content) for m in sent)
            case AssistantMessage(text=text, calls=asked):
                assert any(
                    isinstance(m, AssistantMessage) and text in m.text and m.calls[-len(asked) or 9 :] == asked
                    for m in sent
                )
            case ToolMessage():
                assert message in sent
            case SystemMessage(text=text):
                assert any(isinstance(m, SystemMessage) and text in m.text for m in sent)
    assert alternate(sent) == sent


def refuse_unless_alternate(body: dict[str, Any]) -> tuple[int, str] | None:
    spoken = [
        m["role"]
        for m in body["messages"]
        if m["role"] == "user" or (m["role"] == "assistant" and not m.get("tool_calls"))
    ]
    fits = all(role == ("user", "assistant")[place % 2] for place, role in enumerate(spoken))
    return None if fits else (500, "Conversation roles must alternate user/assistant/user/assistant/...")


def test_server_that_wants_roles_to_alternate_is_asked_so_and_that_is_remembered() -> None:
    history: list[dict[str, JSON]] = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    replies = [scripted.chat("Fine")] * 2
    with picky(refuse_unless_alternate, replies) as (url, bodies):
        agent = Agent(model_at(url))
        result = agent.run_sync("three", history=history)
        agent.run_sync("three", history=history)
    assert [len(body["messages"]) for body in bodies] == [3, 1, 1]
    assert bodies[1]["messages"] == [{"role": "user", "content": "one\n\ntwo\n\nthree"}]
    assert [text_of(message.content) for message in result.messages if isinstance(message, UserMessage)] == [
        "one",
        "two",
        "three",
    ]


def test_roles_alternate_by_a_setting_as_well() -> None:
    with picky(refuse_unless_alternate, [scripted.chat(scripted.call("peek", q="1")), scripted.chat("Fine")]) as (
        url,
        bodies,
    ):
        agent = Agent(model_at(url, alternate_roles=True), tools=[peek], limits=Limits(turns=1))
        history = run_wait(agent, "one").messages
        assert agent.run_sync("two", history=history).output == "Fine"
    assert bodies[-1]["messages"][-2] == {"role": "assistant", "content": NO_ANSWER}


def run_wait(agent: Agent[Any], text: str) -> Any:
    return asyncio.run(_wait(agent, text))


# Typed answers


@dataclass(frozen=True)
class Answer:
    count: int


GOOD = [
    '{"count": 1}',
    'Here you go: {"count": 1}',
    '{"count": 1}\n\nAnything else?',
    '```json\n{"count": 1}\n```',
    'Sure.\n```\n{"count": 1}\n```\nBye {name}!',
    '<think>one or two?</think>{"count": 1}',
    '<think>{"count": 2}?</think>\n{"count": 1}',
    '{"count": 2}? no.</think>{"count": 1}',
    '<thinking>{"count": 2}</thinking>So: {"count": 1}',
    'first {"count": 1}, I repeat {"count":1}',
    'Not {this} but {"count": 1} of {"other": {"count": 3}}',
]
BAD = [
    '{"count": 1} or {"count": 2}',
    '<think>{"count": 1}</think>',
    '<think>{"count": 1}',
    "one",
    '{"other": {"count": 1}}',
    "",
]


@pytest.mark.parametrize("text", GOOD)
def test_typed_answer_is_found_with_something_around_it(text: str) -> None:
    assert make_output(Answer).read(text) == Answer(1)


@pytest.mark.parametrize("text", BAD)
def test_what_holds_no_one_answer_is_refused(text: str) -> None:
    with pytest.raises(OutputInvalid):
        make_output(Answer).read(text)


def test_different_answers_are_told_apart_from_none() -> None:
    with pytest.raises(OutputInvalid, match="2 different answers"):
        make_output(Answer).read('{"count": 1} or {"count": 2}')
    with pytest.raises(OutputInvalid, match="count: Input should be a valid integer"):
        make_output(Answer).read('Here: {"count": "many"}')


@pytest.mark.parametrize(
    "text", ['{"value": [1, 2]}', "[1, 2]", "I found [1, 2].", '<think>[3]</think>{"value": [1, 2]}']
)
def test_wrapped_answer_is_found_too(text: str) -> None:
    assert make_output(list[int]).read(text) == [1, 2]


@given(st.text(alphabet='{}[]"a,:1\\ <think>/', max_size=60))
def test_for_every_text_the_pieces_that_are_found_are_json_in_it(text: str) -> None:
    for piece in find_json(text):
        assert piece in text
    assert drop_thinking(text) in text or not drop_thinking(text)


def test_search_for_json_has_a_bound() -> None:
    text = '{"a": ' * 100_000
    assert list(find_json(text)) == []
    assert len(list(find_json("{} " * 1000))) == MAX_TRIES


# Tools beside a schema

PAIRS = [
    "Function calling with a response mime type: 'application/json' is unsupported",
    "Tools and response_format can't be used together",
    "json_schema is not supported with tools",
]


@pytest.mark.parametrize("words", PAIRS)
@pytest.mark.parametrize("json_schema", [True, False])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_schema_goes_into_the_instructions_where_tools_stand_beside_it(words: str, json_schema: bool, api: str) -> None:
    def rule(body: dict[str, Any]) -> tuple[int, str] | None:
        return (400, words) if body.get("tools") and (body.get("response_format") or body.get("text")) else None

    say = scripted.chat if api == "chat" else scripted.responses
    with picky(rule, [say(scripted.call("peek", q="1")), say('{"count": 1}')] * 2) as (url, bodies):
        agent = Agent(model_at(url, json_schema=json_schema, api=api), tools=[peek], output_type=Answer)
        assert agent.run_sync("Count.").output == Answer(1)
        asked = len(bodies)
        assert agent.run_sync("Count.").output == Answer(1)
    assert (asked, len(bodies)) == (3, 5)  # once in vain; then it is known
    assert "fits this JSON Schema" in str(bodies[-1])


def test_setting_asks_so_at_once() -> None:
    with picky(lambda _: None, [scripted.chat('{"count": 1}')]) as (url, [*_]):
        agent = Agent(model_at(url, schema_with_tools=False), tools=[peek], output_type=Answer)
        assert agent.run_sync("Count.").output == Answer(1)


def test_refusal_that_is_not_helped_names_the_setting() -> None:
    refused = pytest.raises(ModelError, match="schema_with_tools=False")
    with picky(lambda _: (400, PAIRS[0]), []) as (url, bodies), refused:
        Agent(model_at(url), tools=[peek], output_type=Answer).run_sync("Count.")
    assert len(bodies) == 2


# Histories of others


def test_parts_of_a_web_client_are_read() -> None:
    history: list[dict[str, JSON]] = [
        {"id": "1", "role": "user", "parts": [{"type": "text", "text": "How is the weather?"}]},
        {
            "id": "2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "hm"},
                {"type": "text", "text": "I look."},
                {
                    "type": "tool-weather",
                    "toolCallId": "c",
                    "state": "output-available",
                    "input": {"city": "서울"},
                    "output": {"sky": "clear"},
                },
                {
                    "type": "dynamic-tool",
                    "toolName": "pay",
                    "toolCallId": "d",
                    "state": "output-error",
                    "input": {},
                    "errorText": "no",
                },
                {"type": "tool-late", "toolCallId": "e", "state": "input-available", "input": {}},
                {"type": "step-start"},
                {"type": "text", "text": "Clear."},
            ],
        },
    ]
    user, asked, weather, pay, late, said = read_history(history)
    assert user == UserMessage("How is the weather?")
    assert isinstance(asked, AssistantMessage)
    assert (asked.text, asked.thinking, [one.name for one in asked.calls]) == (
        "I look.",
        "hm",
        ["weather", "pay", "late"],
    )
    assert weather == ToolMessage("c", "weather", '{"sky":"clear"}')
    assert pay == ToolMessage("d", "pay", "no", is_error=True)
    assert isinstance(late, ToolMessage)
    assert late.is_error
    assert said == AssistantMessage("Clear.")


def test_files_in_parts_are_read() -> None:
    parts: JSON = [
        {"type": "text", "text": "What is this?"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
        {
            "type": "file",
            "mediaType": "application/pdf",
            "filename": "a.pdf",
            "url": "data:application/pdf;base64,AA==",
        },
    ]
    (message,) = read_history([{"role": "user", "parts": parts}])
    assert message == UserMessage(
        (
            Text("What is this?"),
            Image("data:image/png;base64,AA=="),
            File("a.pdf", data_url="data:application/pdf;base64,AA=="),
        )
    )


def test_parts_without_a_type_are_read_as_gemini_writes_them() -> None:
    history: list[dict[str, JSON]] = [
        {"role": "user", "parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"text": "Ho"}]},
    ]
    assert read_history(history) == (UserMessage("Hi"), AssistantMessage("Ho"))


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"role": "user"}, "'content' (or 'parts')"),
    ({"role": "user", "message": "hi"}, "only: 'message'"),
    ({"role": "user", "content": None}, "'content' (or 'parts')"),
    ({"role": "user", "content": {"text": "hi"}}, "expected text or a list of parts"),
    ({"role": "user", "content": ["hi"]}, "expected an object with type and text"),
    ({"role": "user", "parts": []}, "expected one of type text"),
    ({"role": "user", "parts": [{"type": "video", "url": "x"}]}, "'video'"),
    ({"role": "user", "parts": ["hi"]}, "expected an object with type and text"),
    ({"role": "assistant"}, "'tool_calls'"),
    ({"role": "assistant", "value": "hi"}, "'content', 'parts' or 'tool_calls'"),
    ({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}, "'tool_use'"),
    ({"role": "assistant", "content": 12}, "expected text"),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "expected 'id'"),
    ({"role": "assistant", "parts": [{"functionCall": {"name": "f"}}]}, "expected text"),
    ({"role": "assistant", "parts": [{"type": "tool-f", "input": {}}]}, "'toolCallId'"),
    ({"role": "tool", "content": "1"}, "'tool_call_id'"),
    ({"role": "tool", "tool_call_id": "a"}, "'content'"),
    ({"role": "system", "prompt": "hi"}, "'content'"),
    ({"type": "human", "content": "hi"}, "role"),
]


@pytest.mark.parametrize(("message", "expected"), UNREADABLE)
def test_message_that_cannot_be_read_is_refused_with_the_key_that_was_expected(
    message: dict[str, JSON], expected: str
) -> None:
    with pytest.raises((ConfigurationError, ValueError)) as failed:
        Agent(ScriptedModel(["Hi"])).run_sync("hi", history=[{"role": "user", "content": "one"}, message])
    assert "history[1]" in str(failed.value)
    assert expected in str(failed.value)


_VALUES: list[Any] = [
    None, "user", "assistant", "tool", "system", "hi", 1, {}, [], ["hi"],
    [{"type": "text", "text": "hi"}], [{"text": "hi"}], [{"type": "x"}],
]  # fmt: skip
_OBJECTS = st.dictionaries(
    st.sampled_from(["role", "content", "text", "parts", "tool_calls", "calls", "x", "tool_call_id"]),
    st.sampled_from(_VALUES),
    max_size=4,
)


@given(_OBJECTS)
def test_for_every_object_what_is_read_says_what_it_said(data: dict[str, Any]) -> None:
    try:
        read = read_history([data])
    except ValueError:
        return
    said = next((data[key] for key in ("content", "text", "parts") if data.get(key)), None)
    if "hi" in str(said):
        assert "hi" in str([message.to_json() for message in read])

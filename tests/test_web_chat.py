"""The chat on the page about web clients: several people, a refund that waits, and a process that starts anew."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowkit import Journal
from flowkit.testing import ScriptedModel, call

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "web-client.md"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in re.findall(rb"^data: (.+)$", self.body, re.MULTILINE)]


class Browser:
    """Asks an ASGI app as a server such as uvicorn would."""

    def __init__(self, app: Any, user: str) -> None:
        self._app = app
        self._user = user

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        all_headers = {"x-user": self._user, **(headers or {})}
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
        }
        await self._app(scope, receive, send)
        return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))

    async def say(self, message: str) -> str:
        answer = await self.ask("POST", "/chat/today", {"message": message})
        return json.loads(answer.body)["run"]

    async def watch(self, run: str, *, after: int | None = None) -> Answer:
        return await self.ask("GET", f"/runs/{run}", headers={} if after is None else {"last-event-id": str(after)})


def start_process() -> dict[str, Any]:
    """The page's module, as a new process has it."""
    block = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    module: dict[str, Any] = {"__name__": "chat"}
    exec(block[1], module)
    return module


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_refund_is_approved_elsewhere_and_goes_on_in_a_new_process() -> None:
    async def go() -> None:
        chat = start_process()
        kim = Browser(chat["app"], "kim")
        with chat["agent"].override(model=ScriptedModel([[call("refund_order", order_id="ORD-1")]])):
            run = await kim.say("Refund ORD-1, please.")
            seen = (await kim.watch(run)).events
        assert seen[-1]["status"] == "waiting"

        elsewhere = Journal("chat.sqlite3")
        elsewhere.decide(
            run, next(event["call"] for event in seen if event["type"] == "approval.asked"), approved=True, by="park"
        )
        elsewhere.close()

        chat["journal"].close()
        chat = start_process()
        kim = Browser(chat["app"], "kim")
        with chat["agent"].override(model=ScriptedModel(["It is on its way."])):
            await kim.ask("POST", f"/runs/{run}")
            events = (await kim.watch(run, after=seen[-1]["seq"])).events
        chat["journal"].close()
        assert events[0]["seq"] == seen[-1]["seq"] + 1
        assert [event["value"] for event in events if event["type"] == "call.finished"] == ["ORD-1 is paid back"]
        assert events[-1]["output"] == "It is on its way."

    asyncio.run(go())


def test_nobody_watches_or_goes_on_with_the_run_of_another() -> None:
    async def go() -> None:
        chat = start_process()
        kim, lee = Browser(chat["app"], "kim"), Browser(chat["app"], "lee")
        with chat["agent"].override(model=ScriptedModel(["For Kim."])):
            run = await kim.say("Hello.")
            assert (await lee.watch(run)).status == 404
            await kim.watch(run)
            await lee.ask("POST", f"/runs/{run}")
            assert b"For Kim" not in (await lee.watch(run)).body
            assert (await kim.watch(run)).events[-1]["output"] == "For Kim."
        chat["journal"].close()

    asyncio.run(go())

"""Servers that ask a person, in both eras: accepted, declined, cancelled, and where nobody can be asked."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from flowkit.codec import JSON
from flowkit.models.scripted import call
from tests.test_mcp_tools import ask, find_servers, make_tools, read_lines

Answer = Mapping[str, JSON] | Literal["cancel"] | None


GIVEN: list[tuple[Answer, str]] = [
    ({"name": "Ann"}, "accept {'name': 'Ann'}"),
    (None, "decline None"),
    ("cancel", "cancel None"),
]


@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.slow)])
def test_a_servers_question_gets_the_persons_answer(tmp_path: Path, mode: str) -> None:
    asked: list[tuple[str, str, list[str]]] = []

    async def answer(server: str, message: str, schema: Mapping[str, Any]) -> Answer:
        asked.append((server, message, [*schema["properties"]]))
        return GIVEN[len(asked) - 1][0]

    async def go() -> None:
        async with make_tools(tmp_path, ask=answer, mode=mode) as tools:
            for _, said in GIVEN:
                result = await ask(tools, call("small_ask"))
                assert (result.calls[0].state, result.calls[0].value) == ("finished", said)

    asyncio.run(go())
    assert asked == [("small", "Who are you?", ["name"])] * len(GIVEN)
    # The newer era's server is asked again with the answer; the older one's waits within its one call.
    assert len(read_lines(tmp_path, "calls")) == len(GIVEN) * (2 if mode == "auto" else 1)
    assert find_servers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.slow)])
def test_where_nobody_can_be_asked_the_call_fails_and_the_run_goes_on(tmp_path: Path, mode: str) -> None:
    result = asyncio.run(ask(make_tools(tmp_path, mode=mode), call("small_ask"), call("small_echo", text="on")))
    assert (result.status, [outcome.state for outcome in result.calls]) == ("done", ["failed", "finished"])
    assert find_servers(tmp_path) == []

"""What a service does before its first run."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flowkit import Agent, AnthropicModel, DiskCache, FallbackModel, Journal, OpenAIModel, ScriptedModel, tool
from flowkit.models.default import DefaultModel


@dataclass
class Server:
    """A server on loopback that counts its connections; `silent` ones accept and never answer."""

    is_silent: bool = False
    connections: int = 0
    requests: list[str] = field(default_factory=list[str])
    base_url: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.add(asyncio.create_task(self.answer(reader, writer)))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.requests.append(line.decode().rsplit(" ", 1)[0])
                length = 0
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                await reader.readexactly(length)
                if self.is_silent:
                    await asyncio.Event().wait()
                writer.write(_respond(line))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def _respond(line: bytes) -> bytes:
    if line.startswith(b"GET"):
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def serve(*, is_silent: bool = False) -> AsyncGenerator[Server]:
    server = Server(is_silent)
    listener = await asyncio.start_server(server.take, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks)


def test_the_first_run_uses_the_connection_that_is_open(tmp_path: Path) -> None:
    async def go() -> tuple[Server, list[str], tuple[str, ...]]:
        async with serve() as server:
            model = OpenAIModel("m", base_url=server.base_url)
            cache, journal = DiskCache(tmp_path / "cache"), Journal(tmp_path / "runs.sqlite3")
            agent = Agent(model, cache=cache, journal=journal)
            warm = await agent.warm_up()
            assert (await agent.run("Hello")).output == "Hi"
            await model.aclose()
            await cache.close()
            journal.close()
            return server, list(warm.seconds), warm.problems

    server, parts, problems = asyncio.run(go())
    assert server.connections == 1
    assert server.requests == ["GET /v1/models", "POST /v1/chat/completions"]
    assert (parts, problems) == (["tools", "cache", "journal", "prices", "model m"], ())


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_server_that_is_away_is_a_problem_and_no_error(kind: str) -> None:
    model = (
        OpenAIModel("m", base_url="http://127.0.0.1:9/v1")
        if kind == "openai"
        else AnthropicModel("claude-x", base_url="http://127.0.0.1:9", api_key="k")
    )
    warm = asyncio.run(Agent(model, cache=False).warm_up())
    assert len(warm.problems) == 1
    assert warm.problems[0].startswith(f"model {model.name}: ")
    assert "can't reach 127.0.0.1" in warm.problems[0]


def test_a_missing_key_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "FLOWKIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    model = DefaultModel()

    warm = asyncio.run(Agent(model, cache=False).warm_up())

    assert [problem.partition(": no model server")[0] for problem in warm.problems] == [f"model {model.name}"]


def test_a_server_that_says_nothing_is_left_in_time() -> None:
    async def go() -> tuple[str, ...]:
        async with serve(is_silent=True) as server:
            model = OpenAIModel("m", base_url=server.base_url)
            warm = await Agent(model, cache=False).warm_up(timeout=0.05)
            await model.aclose()
            return warm.problems

    assert asyncio.run(go()) == ("model m: not ready within 0.05 s",)


def test_each_model_of_a_fallback_is_connected() -> None:
    async def go() -> tuple[list[str], tuple[str, ...]]:
        async with serve() as server:
            model = OpenAIModel("m", base_url=server.base_url)
            spare = ScriptedModel(["Hi"])
            away = OpenAIModel("away", base_url="http://127.0.0.1:9/v1")
            warm = await Agent(FallbackModel(model, spare, away), cache=False).warm_up()
            await model.aclose()
            return list(warm.seconds), warm.problems

    parts, problems = asyncio.run(go())
    assert parts == ["tools", "prices", "model m", "model away"]
    assert [problem.partition(":")[0] for problem in problems] == ["model away"]


PROGRAM = """
import asyncio, sys
from pathlib import Path
from flowkit import Agent, DiskCache, Journal, OpenAIModel, tool
import tests.test_warm_up as served

async def main():
    async with served.serve() as server:
        model = OpenAIModel("m", base_url=server.base_url)
        cache, journal = DiskCache("cache"), Journal("runs.sqlite3")
        agent = Agent(model, tools=[served.look], cache=cache, journal=journal)
        await agent.warm_up()
        before = set(sys.modules)
        await agent.run("Hello")
        print(sorted(name for name in set(sys.modules) - before if "." not in name))
        await model.aclose()
        await cache.close()
        journal.close()

asyncio.run(main())
"""


@tool(ttl=60)
def look(word: str) -> str:
    """Look a word up."""
    return word


@pytest.mark.slow
def test_the_first_run_after_it_imports_no_package(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr

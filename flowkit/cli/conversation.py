"""A conversation with an app's agent: its data, its model and its history, from the first message to the last."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, BinaryIO

from flowkit.agent import Agent, AgentResult, AgentRunOptions
from flowkit.apps import App
from flowkit.cache import open_default_cache
from flowkit.cli.model_choice import close_models, find_server
from flowkit.cli.output import note
from flowkit.cli.running import watch
from flowkit.cli.starting import show_start
from flowkit.display.words import clean, say_arguments
from flowkit.events import RunStatus
from flowkit.executor import Approve, Decision, Deny
from flowkit.journal import Journal
from flowkit.mcp_client import MCPTools
from flowkit.messages import Message
from flowkit.models.base import Model
from flowkit.runs.results import Pending


class Conversation:
    """A conversation of one user with one agent. Call `open` before the first message and `close` after the last."""

    def __init__(
        self,
        app: App,
        agent: Agent[Any],
        *,
        model: Model | None = None,
        journal: Journal | None = None,
        session: str | None = None,
        trace: BinaryIO | None = None,
        servers: Sequence[MCPTools] = (),
    ) -> None:
        self._app = app
        self._agent = agent
        self._model = model
        self._journal = journal
        self._session = session
        self._trace = trace
        self._servers = servers
        self._history: tuple[Message, ...] = ()
        self._data: object = None
        self._user: str | None = None
        self._is_open = False
        self._closing = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    async def open(self, options: Mapping[str, str], user: str | None) -> None:
        """Open the app's data; raises `ConfigurationError` if that fails."""
        tried = asyncio.Event()

        async def hold() -> None:
            # Opened and closed in one task, as task groups and cancel scopes inside an app's data need it.
            try:
                async with AsyncExitStack() as stack:
                    self._data, self._user = await stack.enter_async_context(self._app.open(options, user))
                    # One connection for the whole conversation: a server may keep a state between messages.
                    if self._servers:
                        with show_start(f"waiting for {_list_names(self._servers)}"):
                            told = await _enter(self._servers, stack)
                        for line in told:
                            note(line)
                    self._is_open = True
                    tried.set()
                    await self._closing.wait()
            finally:
                tried.set()

        self._holder = asyncio.create_task(hold())
        await tried.wait()
        if not self._is_open:
            await self._holder

    async def close(self) -> None:
        """Close what `open` opened, the connections of the model, and the cache."""
        await close_models(self._model or self._agent.model)
        await open_default_cache().close()
        self._closing.set()
        if self._holder is not None:
            if not self._is_open:
                self._holder.cancel()
            await asyncio.wait([self._holder])

    async def say(self, text: str) -> RunStatus:
        """Send a message and show the answer. On a terminal, ask the user about each call that needs approval."""
        # A session's history is in the journal.
        history: AgentRunOptions = {} if self._session is not None else {"history": self._history}
        return await self._finish(await self._run(text, history))

    async def go_on(self, run_id: str) -> RunStatus:
        """Resume a run from the journal, and show it."""
        return await self._finish(await self._run(None, {"run_id": run_id}))

    async def fork(self, options: AgentRunOptions, text: str | None) -> RunStatus:
        """Fork a run from an earlier turn of another run, and show it."""
        return await self._finish(await self._run(text, options))

    async def _finish(self, result: AgentResult[Any]) -> RunStatus:
        while result.status == "waiting" and sys.stdin.isatty():
            decisions = {pending.id: _ask(pending) for pending in result.pending}
            if self._journal is None:
                result = await self._run(None, {"history": result.messages, "decisions": decisions})
            else:
                result = await self._run(None, {"run_id": result.run_id, "decisions": decisions})
        self._history = result.messages
        _say_end(result, in_journal=self._journal is not None)
        return result.status

    async def _run(self, text: str | None, options: AgentRunOptions) -> AgentResult[Any]:
        given: AgentRunOptions = {"data": self._data, "user": self._user, "session": self._session, **options}
        with self._agent.override(model=self._model, journal=self._journal):
            run = self._agent.start(text, **given)
        opens = [server for server in MCPTools.find(self._agent.tools) if server is not None and not server.is_open]
        asked = find_server(self._model or self._agent.model)
        await watch(run, trace=self._trace, server=asked, opens=_list_names(opens))
        return await run.wait()


def _list_names(servers: Sequence[MCPTools]) -> str:
    return ", ".join(server.name for server in servers)


async def _enter(servers: Sequence[MCPTools], stack: AsyncExitStack) -> list[str]:
    """Connect to all servers at once; return a line about the tools of each."""

    async def enter(server: MCPTools) -> str:
        await stack.enter_async_context(server)
        return f"{server.name}: {await server.describe()}"

    try:
        async with asyncio.TaskGroup() as group:
            entering = [group.create_task(enter(server)) for server in servers]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in entering]


def _ask(pending: Pending) -> Decision:
    """Ask for approval at the terminal; any answer but yes denies."""
    print(f"approve {clean(pending.name)}({say_arguments(dict(pending.arguments), 400)})? [y/N] ", end="", flush=True)
    return Approve() if sys.stdin.readline().strip().lower() in ("y", "yes", "예", "네") else Deny("the person said no")


def _say_end(result: AgentResult[Any], *, in_journal: bool) -> None:
    """Print one line that says why there is no answer and how to resume."""
    match result.status:
        case "waiting":
            names = ", ".join(pending.name for pending in result.pending)
            note(f"flowkit: the run waits for approval of {names}, and there is no terminal to ask on")
            if in_journal:
                note(f"decide with: flowkit runs approve {result.run_id} {result.pending[0].id}")
        case "failed" | "limit":
            note(f"flowkit: {result.error}")
        case "in_doubt":
            note("flowkit: a write may have taken effect; a person has to check and resolve it")
        case "done" | "cancelled":
            pass

"""`flowkit chat`: one message, or a conversation on a terminal."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from flowkit.agent import Agent, AgentRunOptions
from flowkit.apps import App, is_target, load_app
from flowkit.cli.conversation import Conversation
from flowkit.cli.exit_codes import FAILED
from flowkit.cli.journals import open_chosen_journal, open_journal
from flowkit.cli.model_choice import choose_model
from flowkit.cli.options import BaseUrl, CacheAddress, Data, JournalAddress, Model, Session, Trace, User, read_pairs
from flowkit.cli.output import note
from flowkit.cli.running import open_trace
from flowkit.cli.starting import show_start
from flowkit.errors import ConfigurationError
from flowkit.journal import RunDetails
from flowkit.mcp_client import MCPTools
from flowkit.mcp_client.entries import read_commands
from flowkit.models.default import DefaultModel


def chat(
    app: Annotated[
        str | None,
        typer.Argument(metavar="APP", help="The app: path.py, or path.py:name; with --mcp it may be left out."),
    ] = None,
    message: Annotated[
        str | None,
        typer.Argument(metavar="MESSAGE", help="Your message; without one, an interactive conversation starts."),
    ] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    data: Data = None,
    user: User = None,
    session: Session = None,
    trace: Trace = None,
    journal: JournalAddress = None,
    cache: CacheAddress = None,
    mcp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMMAND|URL", help="Give the agent the tools of this MCP server, such as 'npx -y …'; repeatable."
        ),
    ] = None,
) -> None:
    """Talk to an app's agent: one message, or a conversation."""
    servers = read_commands(mcp or ())
    if servers and find_spec("mcp") is None:
        raise ConfigurationError("--mcp needs one more package: pip install 'flowkit-agents[mcp]'")
    if app is not None and message is None and servers and not is_target(app):
        app, message = None, app
    with show_start():
        loaded, agent = _find_agent(app, servers)
    options = read_pairs(data, "--data")
    is_conversation = message is None and sys.stdin.isatty()
    messages = _read_messages() if message is None else iter([_check_message(message)])
    with (
        open_trace(trace) as file,
        open_chosen_journal(journal, wanted=session is not None) as kept,
        choose_model([agent.model], model, base_url) as chosen,
        asyncio.Runner() as runner,
    ):
        conversation = Conversation(
            loaded, agent, model=chosen, journal=kept, session=session, trace=file, servers=servers
        )
        try:
            runner.run(conversation.open(options, user))
            if is_conversation:
                note(f"{agent.name}: type a message; an empty line or Ctrl-D quits.")
            status = "done"
            for text in messages:
                status = _say(runner, conversation, text, is_only=not is_conversation)
        finally:
            runner.run(conversation.close())
    if not is_conversation and status != "done":
        raise typer.Exit(FAILED)


def _find_agent(app: str | None, servers: Sequence[MCPTools]) -> tuple[App, Agent[Any]]:
    """Find the app's agent and add the tools of these servers; without an app, an agent with only these."""
    if app is not None:
        loaded = load_app(app)
        agent = loaded.get_agent()
    elif servers:
        agent = Agent(DefaultModel(), name=servers[0].name)
        loaded = App(Path(), None, {agent.name: agent}, {}, {}, {})
    else:
        raise ConfigurationError("name an app to talk to: flowkit chat path.py; or a server: --mcp 'npx -y …'")
    return loaded, agent.adding(*(server.tools for server in servers))


def resume_chat(
    app: App,
    agent: Agent[Any],
    found: RunDetails,
    *,
    model: str | None,
    base_url: str | None,
    data: list[str] | None,
    trace: Path | None,
    journal: str | None,
    fork: AgentRunOptions | None = None,
    text: str | None = None,
) -> None:
    """Resume a run of this agent, or `fork` it, with or without a new message `text`."""
    with (
        open_trace(trace) as file,
        open_journal(journal) as kept,
        choose_model([agent.model], model, base_url) as chosen,
        asyncio.Runner() as runner,
    ):
        session = found.summary.session if fork is None else None
        conversation = Conversation(app, agent, model=chosen, journal=kept, session=session, trace=file)
        try:
            runner.run(conversation.open(read_pairs(data, "--data"), found.summary.user))
            going = conversation.go_on(found.summary.run_id) if fork is None else conversation.fork(fork, text)
            status = runner.run(going)
        finally:
            runner.run(conversation.close())
    if status != "done":
        raise typer.Exit(FAILED)


def _say(runner: asyncio.Runner, conversation: Conversation, text: str, *, is_only: bool) -> str:
    """Send one message; in a conversation Ctrl-C stops the answer, not the conversation."""
    try:
        return runner.run(conversation.say(text))
    except KeyboardInterrupt:
        if is_only:
            raise
        note("stopped")
        return "cancelled"


def _check_message(text: str) -> str:
    if not text.strip():
        raise ConfigurationError("nothing to say: give a message, or write one to standard input")
    return text


def _read_messages() -> Iterator[str]:
    """Read lines from a person until an empty one, or a pipe's whole text at once."""
    if not sys.stdin.isatty():
        yield _check_message(sys.stdin.read().strip())
        return
    if find_spec("readline") is not None:
        import_module("readline")  # from here on lines can be edited, and earlier ones called back
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            print()
            return
        if not line:
            return
        yield line

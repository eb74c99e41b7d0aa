"""`flowkit runs`: list, inspect, approve, cancel, resolve and resume the runs in a journal."""

import asyncio
import getpass
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Annotated, cast

import typer
from rich.table import Column, Table
from rich.text import Text

from flowkit import codec
from flowkit.agent import AgentRunOptions
from flowkit.apps import load_app
from flowkit.cache import open_default_cache
from flowkit.cli.chat import resume_chat
from flowkit.cli.costs import costs
from flowkit.cli.exports import export
from flowkit.cli.journals import find_run, open_journal
from flowkit.cli.options import (
    AppTarget,
    AsJson,
    BaseUrl,
    CommandGroup,
    Data,
    JournalAddress,
    Model,
    ToolsFile,
    Trace,
    read_pairs,
)
from flowkit.cli.output import make_console, note, print_json, say, say_bytes
from flowkit.cli.recipes import RunSettings, make_job, run_job
from flowkit.display.transcript import Transcript
from flowkit.display.words import clean, say_arguments, say_count, say_value, shorten
from flowkit.errors import ConfigurationError, RunBusy
from flowkit.graph import INPUTS
from flowkit.journal import (
    Done,
    Fail,
    Journal,
    Resolution,
    Retry,
    RunDetails,
    RunSummary,
    default_journal,
    default_journal_path,
    is_url,
)
from flowkit.runs.requests import end_stopped
from flowkit.runs.run import make_run_id

app = typer.Typer(
    cls=CommandGroup, help="List, inspect, approve, cancel and resume a journal's runs.", no_args_is_help=True
)
NARROW = 60
"""On a terminal with fewer columns a list of runs leaves out names, users and seconds."""
WIDE = 110
"""On a terminal with fewer columns the calls of a run are shown in lines, not in a table."""
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Node = Annotated[str, typer.Argument(metavar="CALL", help="The call's name in the run, as `show` prints it.")]
By = Annotated[str | None, typer.Option(help="The person who decides; defaults to your account's name.")]


@app.command("list")
def list_runs(
    status: Annotated[str | None, typer.Option(help="List only runs in this state: running, waiting, done, …")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of runs to list.")] = 20,
    as_json: AsJson = False,
    journal: JournalAddress = None,
) -> None:
    """List the latest runs, newest first."""
    found = _find_runs(journal, status, limit)
    if as_json:
        print_json([_summary_to_json(run) for run in found])
        return
    console = make_console()
    is_narrow = console.width < NARROW
    heads = ("state", "began") if is_narrow else ("what", "state", "user", "began")
    table = Table(Column("run", no_wrap=True), *heads, box=None, pad_edge=False)
    for run in found:
        state, began = _say_status(run), _say_time(run.began_at)
        cells = (run.run_id, state, began[5:16]) if is_narrow else (run.run_id, run.name, state, run.user or "", began)
        table.add_row(*map(clean, cells))  # before the widths are measured
    console.print(table if found else "no runs yet" if status is None else f"no run is {status}")


@app.command()
def show(run_id: RunId, as_json: AsJson = False, journal: JournalAddress = None) -> None:
    """Show a run's calls with their outcomes, and the approvals it waits for."""
    with open_journal(journal, must_exist=True) as opened:
        run = _add_arguments(find_run(opened, run_id), opened)
    if as_json:
        print_json(_details_to_json(run))
        return
    console = make_console()
    summary = run.summary
    console.print(f"{summary.run_id}  {summary.name}  {_say_status(summary)}  began {_say_time(summary.began_at)}")
    table = Table(Column("call", no_wrap=True), "tool", "state", "arguments", "result", box=None, pad_edge=False)
    for node in run.nodes.values():
        result = node.error or ("" if node.value is None else say_value(node.value))
        arguments = say_arguments(node.arguments)
        if console.width < WIDE:
            lines = (f"{node.node}  {node.state}", f"  {node.tool}({arguments})", f"  {result}")
            console.print(*(Text(clean(line)) for line in lines), sep="\n", no_wrap=True, overflow="ellipsis")
        else:
            table.add_row(node.node, node.tool, node.state, _make_cell(arguments, 40), _make_cell(result, 60))
    if table.row_count:
        console.print(table)
    for approval in run.approvals.values():
        if approval.decision is None:
            asked = f"{approval.node} waits for approval: {approval.name}({say_arguments(approval.arguments, 200)})"
            console.print(asked, soft_wrap=True)
        else:
            word = "approved" if approval.decision.approved else "denied"
            console.print(f"{approval.node} was {word} by {approval.decision.by}, {_say_time(approval.decision.at)}")
    if summary.error is not None:
        console.print(summary.error, soft_wrap=True)


@app.command()
def approve(
    run_id: RunId,
    node: Node,
    deny: Annotated[bool, typer.Option("--deny", help="Deny the call.")] = False,
    reason: Annotated[str, typer.Option(help="The reason; the model reads it if the call is denied.")] = "",
    by: By = None,
    journal: JournalAddress = None,
) -> None:
    """Approve or deny a waiting call. After the last decision the run is queued for a worker or for `runs resume`."""
    with open_journal(journal, must_exist=True) as opened:
        find_run(opened, run_id)
        decision = opened.decide(run_id, node, approved=not deny, by=by or getpass.getuser(), reason=reason)
        _queue_if_ready(opened, run_id)
    say(f"{node} {'approved' if decision.approved else 'denied'} by {decision.by}")


@app.command()
def cancel(run_id: RunId, journal: JournalAddress = None) -> None:
    """Cancel a run, whichever process drives it; its driver sees this within about a second."""
    with open_journal(journal, must_exist=True) as opened:
        found = find_run(opened, run_id)
        if not opened.request_cancel(run_id):
            raise ConfigurationError(f"run {run_id!r} is over: {found.summary.status}")
        if not found.summary.is_held:
            with suppress(RunBusy):  # its new driver finds the request
                asyncio.run(end_stopped(opened, found, "cancelled", "it was cancelled while it stood still"))
    say(f"{run_id} is being cancelled" if found.summary.is_held else f"{run_id} is cancelled")


@app.command()
def resolve(
    run_id: RunId,
    node: Node,
    done: Annotated[str | None, typer.Option(metavar="JSON", help="The write took effect, with this result.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="The write did not take effect; retry it.")] = False,
    fail: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Treat the write as failed, for this reason.")
    ] = None,
    by: By = None,
    journal: JournalAddress = None,
) -> None:
    """Resolve a write in doubt: record whether it took effect."""
    resolution = _read_resolution(done, retry, fail)
    with open_journal(journal, must_exist=True) as opened:
        find_run(opened, run_id)
        settled = opened.resolve(run_id, node, resolution, by=by or getpass.getuser())
        if settled.resources:
            asyncio.run(_end_reads(settled.resources))
        _queue_if_ready(opened, run_id)
    say(f"{node} is resolved; a worker goes on with the run, or: flowkit runs resume {run_id} APP")


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="The minimum time since a run ended, such as 30d, 12h or 45m.")
    ] = None,
    events_older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Remove the events of runs that began that long ago; the runs stay."),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also remove runs that were stopped, are waiting, or are in doubt.")
    ] = False,
    journal: JournalAddress = None,
) -> None:
    """Remove old runs with their results; their messages are removed from their sessions too."""
    if older_than is None and events_older_than is None:
        raise ConfigurationError(
            "--older-than TIME removes runs, --events-older-than TIME their events: give one, or both"
        )
    age_s = None if older_than is None else _read_duration("--older-than", older_than)
    age_of_events_s = None if events_older_than is None else _read_duration("--events-older-than", events_older_than)
    with open_journal(journal, must_exist=True) as opened:
        removed = 0 if age_s is None else opened.prune(age_s, unfinished=unfinished)
        events = None if age_of_events_s is None else opened.prune_events(age_of_events_s)
        left = opened.get_stats()
    count, size_bytes = sum(left.runs.values()), left.size_bytes + left.blob_bytes
    and_events = "" if events is None else f" and {say_count(events, 'event')}"
    print(f"{say_count(removed, 'run')}{and_events} removed; left: {count}, {say_bytes(size_bytes)}")


@app.command()
def stats(as_json: AsJson = False, journal: JournalAddress = None) -> None:
    """Show the number of runs in each state, and the journal's size."""
    with open_journal(journal, must_exist=True) as opened:
        found = opened.get_stats()
        name = opened.name
    size_bytes = found.size_bytes + found.blob_bytes
    if as_json:
        print_json({"path": name, "runs": dict(found.runs), "size_bytes": size_bytes})
        return
    console = make_console()
    began = "" if found.oldest_began_at is None else f", the first of {_say_time(found.oldest_began_at)}"
    console.print(
        f"{name}: {say_count(sum(found.runs.values()), 'run')}, {say_bytes(size_bytes)}{began}", soft_wrap=True
    )
    for status, count in found.runs.items():
        console.print(f"{count} {status}")


@app.command()
def resume(
    run_id: RunId,
    app: AppTarget,
    tools: ToolsFile = None,
    data: Data = None,
    model: Model = None,
    base_url: BaseUrl = None,
    trace: Trace = None,
    as_json: AsJson = False,
    journal: JournalAddress = None,
) -> None:
    """Resume a run that was stopped, killed, or is waiting; completed calls don't run again."""
    with open_journal(journal, must_exist=True) as opened:
        found = find_run(opened, run_id)
    loaded = load_app(app, tools=tools)
    name = found.summary.name
    agent = next((agent for agent in loaded.agents.values() if agent.name == name), None)
    recipe = next((recipe for recipe in loaded.recipes.values() if recipe.name == name), None)
    if recipe is not None:
        settings = RunSettings(read_pairs(data, "--data"), model, base_url, trace, journal, as_json)
        run_job(make_job(loaded, recipe, found), settings)
    elif agent is not None:
        resume_chat(loaded, agent, found, model=model, base_url=base_url, data=data, trace=trace, journal=journal)
    else:
        raise ConfigurationError(f"{app} has no agent or recipe {name!r}, to which run {run_id!r} belongs")


@app.command()
def fork(
    run_id: RunId,
    app: AppTarget,
    at: Annotated[str, typer.Option(metavar="TURN", help="The turn to repeat, such as turn/2.")],
    message: Annotated[str | None, typer.Option(help="A new message to send before that turn.")] = None,
    result: Annotated[
        list[str] | None,
        typer.Option(metavar="CALL=JSON", help="A result that replaces the one of an earlier call; repeatable."),
    ] = None,
    data: Data = None,
    model: Model = None,
    base_url: BaseUrl = None,
    trace: Trace = None,
    journal: JournalAddress = None,
) -> None:
    """Start a new run from an earlier turn of this one; nothing before that turn is repeated."""
    with open_journal(journal, must_exist=True) as opened:
        found = find_run(opened, run_id)
    loaded = load_app(app)
    agent = next((agent for agent in loaded.agents.values() if agent.name == found.summary.name), None)
    if agent is None and any(recipe.name == found.summary.name for recipe in loaded.recipes.values()):
        raise ConfigurationError(f"run {run_id!r} is of a recipe; only an agent's run has turns to fork it at")
    if agent is None:
        raise ConfigurationError(f"{app} has no agent {found.summary.name!r}, to which run {run_id!r} belongs")
    results = {name: _read_json("--result", text) for name, text in read_pairs(result, "--result").items()}
    options: AgentRunOptions = {"fork": run_id, "at": at, "results": results, "run_id": make_run_id()}
    note(f"run {options.get('run_id')} is forked from {run_id} before {at}")
    resume_chat(
        loaded,
        agent,
        found,
        model=model,
        base_url=base_url,
        data=data,
        trace=trace,
        journal=journal,
        fork=options,
        text=message,
    )


def _find_runs(journal: str | None, status: str | None, limit: int) -> Sequence[RunSummary]:
    """Return the runs; an empty list if the default journal doesn't exist yet."""
    if journal is None and not is_url(default_journal()) and not default_journal_path().exists():
        return ()
    with open_journal(journal, must_exist=True) as opened:
        return opened.runs(status=status, limit=limit)


def _add_arguments(run: RunDetails, journal: Journal) -> RunDetails:
    """Add the arguments of reads, which the journal has only in the run's events, with references replaced by values."""
    if all(node.arguments is not None for node in run.nodes.values()):
        return run
    summary = run.summary
    events = cast(
        list[dict[str, codec.JSON]], journal.events(summary.run_id, user=summary.user, session=summary.session)
    )
    sealed = {event["call"]: event["arguments"] for event in events if event["type"] == "call.sealed"}
    known = Transcript(results={INPUTS: run.inputs, **{name: node.value for name, node in run.nodes.items()}})
    nodes = {
        name: node if node.arguments is not None else replace(node, arguments=known.fill_in(sealed.get(name)))
        for name, node in run.nodes.items()
    }
    return replace(run, nodes=nodes)


def _queue_if_ready(journal: Journal, run_id: str) -> None:
    """If every approval of the run is decided, queue it: a worker or `runs resume` resumes it."""
    if find_run(journal, run_id).can_go_on:
        journal.requeue(run_id)


async def _end_reads(resources: Sequence[str]) -> None:
    """Invalidate cached reads of these resources: they are older than the resolved write."""
    cache = open_default_cache()
    await cache.bump(resources)
    await cache.close()


def _read_duration(option: str, text: str) -> float:
    """Parse a duration into seconds; raises `ConfigurationError` for anything else.

    >>> [_read_duration("--older-than", text) for text in ("30d", "1.5h", "45m", "10s")]
    [2592000.0, 5400.0, 2700.0, 10.0]
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", text)
    if found is None:
        raise ConfigurationError(f"{option} is {text!r}, expected a number with d, h, m or s, as in 30d")
    return float(found[1]) * {"d": 86_400, "h": 3_600, "m": 60, "s": 1}[found[2]]


def _read_resolution(done: str | None, retry: bool, fail: str | None) -> Resolution:
    chosen = [option for option in (done is not None, retry, fail is not None) if option]
    if len(chosen) != 1:
        raise ConfigurationError("give one of --done JSON, --retry, --fail TEXT")
    if fail is not None:
        return Fail(fail)
    if done is None:
        return Retry()
    return Done(_read_json("--done", done))


def _read_json(option: str, text: str) -> codec.JSON:
    try:
        return codec.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text!r} isn't JSON: {error}") from error


def _make_cell(text: str, limit: int) -> Text:
    """Format a text as one line, truncated to the table's column."""
    return Text(shorten(text, limit), no_wrap=True, overflow="ellipsis")


def _say_status(run: RunSummary) -> str:
    # A run that nobody drives but that never said how it ended was killed.
    return "stopped" if run.status == "running" and not run.is_held else run.status


def _say_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _summary_to_json(run: RunSummary) -> dict[str, codec.JSON]:
    return {
        "run": run.run_id,
        "name": run.name,
        "status": _say_status(run),
        "user": run.user,
        "session": run.session,
        "began_at": run.began_at,
        "changed_at": run.changed_at,
        "error": run.error,
    }


def _details_to_json(run: RunDetails) -> codec.JSON:
    return {
        **_summary_to_json(run.summary),
        "inputs": run.inputs,
        "output": run.output,
        "calls": [
            {
                "call": node.node,
                "tool": node.tool,
                "state": node.state,
                "attempt": node.attempt,
                "arguments": node.arguments,
                "value": node.value,
                "error": node.error,
            }
            for node in run.nodes.values()
        ],
        "waiting": [
            {"call": approval.node, "name": approval.name, "arguments": approval.arguments}
            for approval in run.approvals.values()
            if approval.decision is None
        ],
    }


app.command("export")(export)
app.command("costs")(costs)

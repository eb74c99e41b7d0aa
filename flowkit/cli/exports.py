"""`flowkit runs export`: export a run as a test that replays it, or as a case for `flowkit measure`."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from flowkit.agent import Agent
from flowkit.apps import App, load_app
from flowkit.cli.journals import open_journal
from flowkit.cli.options import Data, JournalAddress, ToolsFile, read_pairs
from flowkit.cli.output import note, say_exactly
from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.exports.pytest_file import find_hidden, name_test, write_cases, write_test
from flowkit.exports.recorded_run import RecordedRecipe, RecordedRun, read_recipe_run, read_run, write_recipe_run
from flowkit.exports.replaying import Replay, record_run, replay_recipe_recording, replay_recording
from flowkit.journal import Journal
from flowkit.models.recording import HIDDEN
from flowkit.recipes import Recipe
from flowkit.tools import Tool


def export(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN…", help="The run's id, or 'last'; several with --case.")],
    app: Annotated[
        str | None, typer.Option("--app", metavar="APP", help="The app that the run belongs to; needed for --test.")
    ] = None,
    tools: ToolsFile = None,
    test: Annotated[bool, typer.Option("--test", help="Write a pytest file and a recording that it replays.")] = False,
    case: Annotated[bool, typer.Option("--case", help="Write cases for `flowkit measure`.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; test_….py in this folder, or standard output for cases."),
    ] = None,
    hide: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text to leave out of the files; repeatable.")
    ] = None,
    data: Data = None,
    journal: JournalAddress = None,
) -> None:
    """Export a run as a test that replays it without a network, or export runs as cases for `flowkit measure`."""
    if test == case:
        raise ConfigurationError("give one of --test, --case")
    if test and len(run_ids) > 1:
        raise ConfigurationError("a test is of one run; give one RUN")
    if test and app is None:
        raise ConfigurationError("--test needs the app that the run belongs to: --app path.py")
    loaded = None if app is None else load_app(app, tools=tools)
    with open_journal(journal, must_exist=True) as opened:
        found = [_find_id(opened, run_id) for run_id in run_ids]
        recipe = _find_recipe(opened, found[0], loaded) if test and loaded is not None else None
        runs: list[RecordedRun] = [] if recipe else [read_run(opened, run_id) for run_id in found]
    if case:
        _export_cases(runs, loaded, out, hide or [])
        return
    assert loaded is not None
    if recipe is not None:
        _export_recipe_test(*recipe, loaded, out, hide or [])
    else:
        _export_test(runs[0], loaded, out, hide or [], read_pairs(data, "--data"))


def _find_recipe(journal: Journal, run_id: str, app: App) -> tuple[RecordedRecipe, Recipe[..., Any]] | None:
    """Find the run's recipe in the app, and the run's record in the journal; None for a run of an agent."""
    details = journal.show(run_id)
    if details is None or any(agent.name == details.summary.name for agent in app.agents.values()):
        return None
    recipe = next((recipe for recipe in app.recipes.values() if recipe.name == details.summary.name), None)
    return None if recipe is None else (read_recipe_run(details), recipe)


def _find_id(journal: Journal, run_id: str) -> str:
    """Return the given id, or for `last` the id of the newest run."""
    if run_id != "last" or journal.find(run_id) is not None:
        return run_id
    newest = journal.runs(limit=1)
    if not newest:
        raise ConfigurationError("there is no run in the journal yet")
    return newest[0].run_id


def _export_cases(runs: list[RecordedRun], app: App | None, out: Path | None, hide: list[str]) -> None:
    tools: dict[str, Tool[..., Any]] | None = None
    if app is not None:
        known = (*app.tools.values(), *(tool for agent in app.agents.values() for tool in agent.tools))
        tools = {tool.name: tool for tool in known}
    text = write_cases(runs, tools)
    for secret in hide:
        text = text.replace(secret, HIDDEN)
    if out is None:
        say_exactly(text.rstrip("\n"))
        return
    _refuse_existing(out)
    out.write_text(text, encoding="utf-8")
    note(f"{out}: say what is right in the answers, too; then: flowkit measure APP --models … --cases {out}")


def _export_test(run: RecordedRun, app: App, out: Path | None, hide: list[str], data: dict[str, str]) -> None:
    agent = next((agent for agent in app.agents.values() if agent.name == run.agent), None)
    if agent is None:
        raise ConfigurationError(f"{app.path} has no agent {run.agent!r}, to which run {run.run_id!r} belongs")
    test, recording = _name_files(run, out, hide)
    # Recorded, then replayed: what the test asserts is what a replay gives, with what is hidden hidden.
    _write(run, app, test, recording, hide, lambda: _record_and_replay(run, agent, app, recording, hide, data))


def _export_recipe_test(
    run: RecordedRecipe, recipe: Recipe[..., Any], app: App, out: Path | None, hide: list[str]
) -> None:
    test, recording = _name_files(run, out, hide)
    write_recipe_run(run, recording, hide)
    _write(run, app, test, recording, hide, lambda: replay_recipe_recording(recording, recipe))


def _name_files(run: RecordedRun | RecordedRecipe, out: Path | None, hide: list[str]) -> tuple[Path, Path]:
    """Choose the paths of the test and its recording; raise if either file exists."""
    test = out or Path(f"test_{name_test(run, hide)}.py")
    if test.suffix != ".py" or not test.name.startswith("test_"):
        raise ConfigurationError(f"--out {str(test)!r}: pytest looks for files named test_….py")
    recording = test.with_suffix(".jsonl")
    for path in (test, recording):
        _refuse_existing(path)
    return test, recording


def _write(
    run: RecordedRun | RecordedRecipe,
    app: App,
    test: Path,
    recording: Path,
    hide: list[str],
    replay_once: Callable[[], Coroutine[Any, Any, Replay]],
) -> None:
    """Write the test of the replayed result; leave no file behind on failure."""
    try:
        replay = asyncio.run(replay_once())
    except FlowkitError as error:
        recording.unlink(missing_ok=True)
        raise ConfigurationError(f"run {run.run_id!r} can't be replayed with {app.path}: {error}") from error
    text = write_test(run, replay, app.path, test, recording, app.tools_file, hide)
    if (left := find_hidden([text, recording.read_text(encoding="utf-8")], hide)) is not None:
        recording.unlink()
        raise ConfigurationError(f"{left!r} is still in the files: the run's id or the app's name holds it")
    test.write_text(text, encoding="utf-8")
    note(f"{test} and {recording.name}: run it with: pytest {test}")


async def _record_and_replay(
    run: RecordedRun, agent: Agent[Any], app: App, path: Path, hide: list[str], options: dict[str, str]
) -> Replay:
    if not options:
        await record_run(run, agent, path, hide=hide)
        return await replay_recording(path, agent)
    async with app.open(options, run.user) as (data, _):
        await record_run(run, agent, path, hide=hide, data=data)
        return await replay_recording(path, agent, data=data)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigurationError(f"{str(path)!r} is there already; name another with --out, or remove it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {str(path.parent)!r}")

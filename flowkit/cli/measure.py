"""`flowkit measure`: several models side by side on the same cases."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flowkit.apps import App, load_app
from flowkit.cli.ending import cancel_at_sigterm
from flowkit.cli.exit_codes import FAILED, MISUSED, STOPPED
from flowkit.cli.model_choice import LOCAL, choose_model, close_models
from flowkit.cli.options import AppTarget, BaseUrl, Data, User, read_pairs
from flowkit.cli.output import note, say, say_exactly
from flowkit.errors import ConfigurationError
from flowkit.measure.cases import CasesError, CasesFile, load_cases
from flowkit.measure.comparing import Comparison, Tolerance, check_comparable, compare
from flowkit.measure.measuring import Candidate, Measuring
from flowkit.measure.page import write_page
from flowkit.measure.records import CaseRun, read_measured
from flowkit.measure.router_rule import Proposal, propose, write_proposal
from flowkit.measure.words import say_run, write_table
from flowkit.models.anthropic import AnthropicModel
from flowkit.models.base import Model
from flowkit.models.default import make_model
from flowkit.models.openai import OpenAIModel
from flowkit.models.pricing import Price


def measure_models(
    app: AppTarget,
    models: Annotated[
        list[str],
        typer.Option(
            "--models",
            "-m",
            metavar="A,B,…",
            help="The models: names, 'local', variables of the app, NAME@URL for one behind another address; LABEL=… names one.",
        ),
    ],
    cases: Annotated[Path, typer.Option(metavar="FILE", help="The YAML file with the cases.")],
    repeat: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="The number of runs per case.")] = 1,
    base_url: BaseUrl = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=IN/OUT", help="A model's price in $ per million tokens; repeatable."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model that judges answers, where a case asks for it.")
    ] = None,
    run_write: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL", help="Run this write for real, once for each model; * for all. Repeatable."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="The time limit of one run.")] = 120.0,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Save every run in this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare with a saved measurement; exit 1 if something got worse."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PERCENT",
            help="How much worse it may get: right (5 points), time (25 %) or cost (10 %). Repeatable.",
        ),
    ] = None,
    data: Data = None,
    user: User = None,
) -> None:
    """Compare models on the same cases.

    The tables show response times, correct calls and answers, and cost.
    """
    loaded = load_app(app)
    tolerance = Tolerance.read(read_pairs(allow, "--allow"))
    before = None if against is None else read_measured(against)
    for path in (json, html):
        _check_writable(path)
    file = _load_cases(cases, loaded)
    with (
        _open_models(loaded, models, base_url, price) as candidates,
        _open_judge(loaded, judge or file.judge) as judging,
    ):
        if before is not None:  # before anything is paid for
            check_comparable([one.label for one in candidates], [case.name for case in file.cases], before)
        measuring = Measuring(
            loaded,
            candidates,
            file,
            repeats=repeat,
            judge=judging,
            allowed_writes=run_write or (),
            timeout_s=timeout,
            data=read_pairs(data, "--data"),
            user=user,
        )

        async def run() -> None:
            cancel_at_sigterm()
            try:
                await measuring.run(_tell)
            finally:
                await close_models(*(candidate.model for candidate in candidates), *([judging] if judging else []))

        is_stopped = False
        try:
            asyncio.run(run())
        except (KeyboardInterrupt, asyncio.CancelledError):
            if not measuring.measured.runs:
                raise KeyboardInterrupt from None
            is_stopped = True  # what was measured has been paid for
            note("")
        measured = measuring.measured
    comparison = None if before is None else compare(measured, before, tolerance)
    proposal = propose(measured)
    say_exactly(write_table(measured).rstrip("\n"))
    _say_proposal(proposal)
    if json is not None:
        json.write_bytes(measured.to_json())
    if html is not None:
        html.write_text(write_page(measured, proposal=proposal, comparison=comparison), encoding="utf-8")
    if comparison is not None:
        _say_comparison(comparison, against)
    if is_stopped:
        raise typer.Exit(STOPPED)
    if comparison is not None and comparison.worse:
        raise typer.Exit(FAILED)
    if all(run.status != "done" for run in measured.runs):
        raise typer.Exit(FAILED)


def _load_cases(path: Path, app: App) -> CasesFile:
    """Load the cases; report each problem of the file on a line."""
    tools = app.get_agent().tools
    names = None if tools.is_dynamic else tools.names
    try:
        return load_cases(path, names)
    except CasesError as error:
        for problem in error.problems:
            note(f"flowkit: {problem}")
        raise typer.Exit(MISUSED) from None


@contextmanager
def _open_models(
    app: App, named: Sequence[str], base_url: str | None, prices: Sequence[str] | None
) -> Generator[list[Candidate]]:
    """Open the named models; stop those that were started here when the block exits."""
    texts = [text.strip() for given in named for text in given.split(",") if text.strip()]
    if not texts:
        raise ConfigurationError("--models names no model")
    known = {name: _read_price(name, text) for name, text in read_pairs(prices, "--price").items()}
    with ExitStack() as stack:
        candidates: list[Candidate] = []
        for text in texts:
            label, model = _find_model(app, text, base_url, known, stack)
            candidates.append(Candidate(label, model))
        labels = [candidate.label for candidate in candidates]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"--models names {twice!r} twice; name one of them, as in new={twice}")
        unknown = next((name for name in known if name not in labels), None)
        if unknown is not None:
            raise ConfigurationError(f"--price {unknown!r} is none of the models {', '.join(labels)}")
        yield candidates


def _find_model(
    app: App, text: str, base_url: str | None, prices: dict[str, Price], stack: ExitStack
) -> tuple[str, Model]:
    """Find a model by `name`, `name@url`, `local`, or a variable of the app. A prefix `label=` sets its label."""
    head, equals, rest = text.partition("=")
    label, spec = (head, rest) if equals and "/" not in head and "@" not in head else (text, text)
    name, _, url = spec.partition("@http")
    address = f"http{url}" if url else base_url
    label = label if label != spec else name
    price = prices.get(label)
    if not url and name in app.models:
        if price is not None:
            raise ConfigurationError(f"{name!r} is the app's own model: give it a price there")
        return label, app.models[name]
    if name == LOCAL and not url:
        chosen = stack.enter_context(choose_model([], LOCAL, None))
        assert chosen is not None
        return label, chosen
    model = make_model(name, address)
    if price is None:
        return label, model
    if isinstance(model, AnthropicModel):
        return label, AnthropicModel(name, base_url=address, price=price)
    return label, OpenAIModel(name, base_url=address, price=price)


def _read_price(name: str, text: str) -> Price:
    given, _, taken = text.partition("/")
    try:
        return Price(input=float(given), output=float(taken))
    except ValueError:
        raise ConfigurationError(
            f"--price {name}={text!r}: expected dollars per million tokens in and out, as in 0.4/1.6"
        ) from None


@contextmanager
def _open_judge(app: App, name: str | None) -> Generator[Model | None]:
    if name is None:
        yield None
        return
    with ExitStack() as stack:
        yield _find_model(app, name, None, {}, stack)[1]


def _check_writable(path: Path | None) -> None:
    """Check that the result can be written before any model is called, since a lost measurement still costs money."""
    if path is not None:
        is_new = not path.exists()
        try:
            with path.open("ab"):
                pass
            if is_new:
                path.unlink()
        except OSError as error:
            raise ConfigurationError(f"{str(path)!r} can't be written: {error.strerror}") from error


def _tell(run: CaseRun) -> None:
    note(say_run(run))


def _say_proposal(proposal: Proposal | str) -> None:
    say("")
    for line in [proposal] if isinstance(proposal, str) else write_proposal(proposal):
        say(line)


def _say_comparison(comparison: Comparison, against: Path | None) -> None:
    say("")
    if not comparison.worse:
        say(f"nothing is worse than in {against} by more than is allowed")
    for line in comparison.worse:
        say(f"worse: {line}")
    for line in comparison.better:
        say(f"better: {line}")
    for line in comparison.notes:
        say(line)

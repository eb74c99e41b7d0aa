"""Models side by side: what a measurement says is what three servers of scripted pace, price and quality did."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rich.cells import cell_len

from flowkit.apps import App, load_app
from flowkit.errors import ConfigurationError
from flowkit.measure.cases import Case, CasesFile, load_cases
from flowkit.measure.figures import Spread, make_figures
from flowkit.measure.measuring import GIVE_UP_AFTER, Candidate, measure
from flowkit.measure.records import Measured, read_measured
from flowkit.measure.router_rule import Proposal, propose, read_requests, write_rule
from flowkit.measure.words import write_table
from flowkit.messages import ToolMessage
from flowkit.models.openai import OpenAIModel
from flowkit.models.pricing import Price
from flowkit.testing import ScriptedModel, call
from tests.timed_server import Answer, Said, TimedServer

APP = '''
from flowkit import Agent, DefaultModel, tool

refunded = []

@tool(effect="read")
def get_order(order_id: str, express: bool = False) -> str:
    """Look an order up."""
    return f"{order_id} is on its way"

@tool
def refund(order_id: str, amount: int) -> str:
    """Give the money back."""
    refunded.append(order_id)
    return "refunded"

agent = Agent(DefaultModel(), tools=[get_order, refund], name="orders")
'''
CASES = """
cases:
  - message: Where is A1?
    calls: [{tool: get_order, arguments: {order_id: A1}}]
    answer: {contains: way}
  - message: 주문 A2는 어디에 있나요?
    calls: [{tool: get_order, arguments: {order_id: A2, express: false}}]
    answer: {contains: way}
  - message: Please check A3
    calls: [{tool: get_order, arguments: {order_id: A3}}]
    answer: {contains: way}
  - message: Refund 5 for A4, which came broken
    calls: [{tool: refund, arguments: {order_id: A4, amount: 5}}]
    answer: {contains: refunded}
    results: {refund: refunded}
"""
PACE = {"cheap": 0.1, "middle": 0.2, "strong": 0.4}
PRICES = {"cheap": Price(input=1, output=2), "middle": Price(input=5, output=10), "strong": Price(input=20, output=40)}


def script(model: str, message: str, turn: int) -> Answer:
    """Each model at its pace: the head of the call after one beat, each half of its arguments after another."""
    pace = PACE[model]
    order = next(word for word in ("A1", "A2", "A3", "A4") if word in message)
    is_refund = "Refund" in message
    if turn:
        said = "refunded" if is_refund else "It is on its way."
        return Answer([Said(pace, "Well. "), Said(pace, said)], tokens=(200, 20))
    tool = "refund" if is_refund else "get_order"
    amount = 50 if model == "cheap" else 5
    arguments = ['{"order_id": ', f'"{order}", "amount": {amount}}}' if is_refund else f'"{order}"}}']
    if model == "middle" and order == "A2":
        arguments = ['{"order_id": ', '"A9"}']
    return Answer([Said(pace, tool=tool, arguments=arguments)], tokens=(100, 30))


@pytest.fixture
def app(tmp_path: Path) -> App:
    (tmp_path / "orders.py").write_text(APP)
    return load_app(str(tmp_path / "orders.py"))


@pytest.fixture
def cases(tmp_path: Path) -> CasesFile:
    (tmp_path / "cases.yaml").write_text(CASES)
    return load_cases(tmp_path / "cases.yaml", ["get_order", "refund"])


@pytest.fixture
def servers() -> Iterator[Mapping[str, TimedServer]]:
    made = {name: TimedServer(script) for name in PACE}
    shared = made["cheap"].clock
    for server in made.values():
        server.clock = shared
        server.__enter__()
    yield made
    for server in made.values():
        server.__exit__()


def measure_three(app: App, cases: CasesFile, servers: Mapping[str, TimedServer], *, repeats: int = 1) -> Measured:
    async def run() -> Measured:
        models = {
            name: OpenAIModel(name, base_url=server.base_url, api_key="any", price=PRICES[name])
            for name, server in servers.items()
        }
        try:
            return await measure(
                app,
                [Candidate(name, model) for name, model in models.items()],
                cases,
                repeats=repeats,
                now=servers["cheap"].clock.now,
            )
        finally:
            for model in models.values():
                await model.aclose()

    return asyncio.run(run())


def test_table_equals_what_the_servers_were_scripted_to_do(
    app: App, cases: CasesFile, servers: Mapping[str, TimedServer]
) -> None:
    measured = measure_three(app, cases, servers)

    for one in make_figures(measured):
        pace, price = PACE[one.model], PRICES[one.model]
        assert one.first_token is not None
        assert one.arguments is not None
        assert one.seconds is not None
        assert one.first_token.median == pytest.approx(pace)
        assert one.arguments.median == pytest.approx(2 * pace)
        assert one.seconds.median == pytest.approx(5 * pace)
        assert one.turns == Spread(2.0, 2.0, 2.0)
        assert one.input_tokens == Spread(300.0, 300.0, 300.0)
        assert one.output_tokens == Spread(50.0, 50.0, 50.0)
        assert one.cost_usd == pytest.approx((300 * price.input + 50 * price.output) / 1_000_000)
        assert one.failed == 0
    assert {one.model: (one.calls_right and one.calls_right.right) for one in make_figures(measured)} == {
        "cheap": 3,
        "middle": 3,
        "strong": 4,
    }
    assert write_table(measured).splitlines()[:6] == [
        "orders: 4 cases, 3 models in turn",
        "",
        "model    first    args   total  calls  answers  turns  tokens   $/case",
        "cheap   100 ms  200 ms  500 ms    3/4      4/4      2  300+50  $0.0004",
        "middle  200 ms  400 ms  1.00 s    3/4      4/4      2  300+50   $0.002",
        "strong  400 ms  800 ms  2.00 s    4/4      4/4      2  300+50   $0.008",
    ]
    assert 'middle: calls: get_order: order_id is "A9", expected "A2"' in write_table(measured)


def test_every_line_fits_80_columns(app: App, cases: CasesFile, servers: Mapping[str, TimedServer]) -> None:
    measured = measure_three(app, cases, servers, repeats=2)
    assert max(map(cell_len, write_table(measured).splitlines())) <= 80
    spread = next(line for line in write_table(measured).splitlines() if line.startswith("middle") and "–" in line)
    assert spread.split() == ["middle", "200–200", "ms", "400–400", "ms", "1.00–1.00", "s", "75–75%", "100–100%"]


def test_models_are_asked_in_turn_and_each_begins_once(
    app: App, cases: CasesFile, servers: Mapping[str, TimedServer]
) -> None:
    measured = measure_three(app, cases, servers)
    assert [run.model for run in measured.runs] == [
        *("cheap", "middle", "strong"),
        *("middle", "strong", "cheap"),
        *("strong", "cheap", "middle"),
        *("cheap", "middle", "strong"),
    ]


def test_a_write_is_answered_and_not_run(app: App, cases: CasesFile, servers: Mapping[str, TimedServer]) -> None:
    measure_three(app, cases, servers)
    assert app.get_agent().tools.get("refund") is not None
    assert _refunded(app) == []


def test_a_write_without_a_result_is_answered_by_the_stub_and_told(
    app: App, servers: Mapping[str, TimedServer]
) -> None:
    case = Case(name="refund", message="Refund 5 for A4")
    measured = measure_three(app, CasesFile(cases=(case,), stub="pretended"), servers)
    assert _refunded(app) == []
    assert measured.notes[0].startswith("writes were answered, not run: refund 3 times")
    results = [m["content"] for m in servers["strong"].requests[-1]["messages"] if m["role"] == "tool"]
    assert results == ["pretended"]


def test_a_read_that_calls_a_write_runs_none(tmp_path: Path) -> None:
    more = '''
from flowkit import CONTEXT, Context

@tool(effect="read")
async def check(order_id: str, ctx: Context = CONTEXT) -> str:
    """Check an order, which is no read at all."""
    return "checked: " + await ctx.call(refund, order_id, amount=1)

agent = Agent(DefaultModel(), tools=[check], name="orders")
'''
    (tmp_path / "checking.py").write_text(APP + more)
    app = load_app(f"{tmp_path / 'checking.py'}:agent")
    model = ScriptedModel([[call("check", order_id="A1")], "done"])
    measured = asyncio.run(
        measure(app, [Candidate("m", model)], CasesFile(cases=(Case(name="x", message="x"),), stub="pretended"))
    )
    assert _refunded(app) == []
    assert measured.runs[0].stubbed == ("refund",)
    assert [m.text for m in model.requests[1].messages if isinstance(m, ToolMessage)] == ["checked: pretended"]


def test_an_allowed_write_runs(app: App, servers: Mapping[str, TimedServer]) -> None:
    model = OpenAIModel("strong", base_url=servers["strong"].base_url, api_key="any")
    file = CasesFile(cases=(Case(name="refund", message="Refund 5 for A4"),))
    asyncio.run(
        measure(app, [Candidate("strong", model)], file, allowed_writes=["refund"], now=servers["cheap"].clock.now)
    )
    assert _refunded(app) == ["A4"]


def test_errors_of_one_model_do_not_stop_the_others(app: App, cases: CasesFile) -> None:
    def answer(model: str, message: str, turn: int) -> Answer:
        return Answer(status=404) if model == "gone" else script("cheap", message, turn)

    with TimedServer(answer) as server:
        models: list[Candidate] = [
            Candidate(name, OpenAIModel(name, base_url=server.base_url, api_key="any")) for name in ("gone", "there")
        ]
        measured = asyncio.run(measure(app, models, cases, now=server.clock.now))
        asked = sum(request["model"] == "gone" for request in server.requests)

    gone, there = make_figures(measured)
    assert (gone.failed, there.failed) == (4, 0)
    assert (gone.right.right, gone.cost_usd, gone.first_token) == (0, None, None)
    assert asked == GIVE_UP_AFTER
    assert any("given up after 3 failures" in note and "no such model" in note for note in measured.notes)


def test_a_measurement_is_read_as_it_was_written(
    app: App, cases: CasesFile, servers: Mapping[str, TimedServer], tmp_path: Path
) -> None:
    measured = measure_three(app, cases, servers)
    (tmp_path / "m.json").write_bytes(measured.to_json())
    assert read_measured(tmp_path / "m.json") == measured
    (tmp_path / "bad.json").write_text('{"app": 1}')
    with pytest.raises(ConfigurationError, match="isn't a measurement"):
        read_measured(tmp_path / "bad.json")


def test_a_router_is_proposed_that_does_on_these_cases_what_it_says(
    app: App, cases: CasesFile, servers: Mapping[str, TimedServer]
) -> None:
    measured = measure_three(app, cases, servers)
    proposal = propose(measured)

    assert isinstance(proposal, Proposal)
    assert (proposal.cheap, proposal.strong, proposal.outcome.sent_wrong) == ("cheap", "strong", ())
    # what the rule, as it is written, sends where
    requests = read_requests(measured)
    chosen = {request.name: _route(write_rule(proposal), request.text) for request in requests}
    assert chosen["Refund 5 for A4, which came broken"] == "strong"
    assert sum(name == "cheap" for name in chosen.values()) == 3
    spent = sum(request.cost_usd[chosen[request.name]] for request in requests)
    assert proposal.outcome.cost_usd == pytest.approx(spent) == pytest.approx(3 * 0.0004 + 0.008)
    assert proposal.strong_cost_usd == pytest.approx(4 * 0.008)


def test_a_judge_that_is_needed_has_to_be_named(app: App, tmp_path: Path) -> None:
    (tmp_path / "cases.yaml").write_text("cases: [{message: Hi, answer: {judge: It greets.}}]")
    file = load_cases(tmp_path / "cases.yaml")
    with pytest.raises(ConfigurationError, match="'Hi' needs a judge: name a model with --judge"):
        asyncio.run(measure(app, [], file))


def test_a_judge_decides_on_the_sentence_that_the_case_names(app: App, tmp_path: Path) -> None:
    (tmp_path / "cases.yaml").write_text(
        "cases: [{message: Hi A1, answer: {judge: It greets.}}, {message: Where is A1, answer: {judge: It greets.}}]"
    )

    def answer(model: str, message: str, turn: int) -> Answer:
        if model == "judge":
            is_true = "Hello" in message
            return Answer([Said(0.0, f'{{"reason": "because", "is_true": {str(is_true).lower()}}}')])
        return Answer([Said(0.1, "Hello!" if "Hi" in message else "Somewhere.")])

    with TimedServer(answer) as server:
        made = {
            name: OpenAIModel(name, base_url=server.base_url, api_key="any", price=Price(input=1, output=1))
            for name in ("judge", "asked")
        }
        file = load_cases(tmp_path / "cases.yaml")
        candidates = [Candidate("asked", made["asked"])]
        measured = asyncio.run(measure(app, candidates, file, judge=made["judge"], now=server.clock.now))

    assert [run.answer_right for run in measured.runs] == [True, False]
    assert measured.runs[1].wrong == ("answer: the judge: because",)
    assert measured.judge_cost_usd == pytest.approx(2 * 110 / 1_000_000)
    assert [run.cost_usd for run in measured.runs] == [pytest.approx(110 / 1_000_000)] * 2


def _refunded(app: App) -> list[str]:
    refund = app.tools["refund"]
    return refund.function.__globals__["refunded"]


def _route(rule: str, text: str) -> str:
    """What the printed rule picks."""
    import flowkit
    from flowkit.messages import UserMessage, text_of
    from flowkit.testing import ScriptedModel

    cheap, strong = ScriptedModel([], name="cheap"), ScriptedModel([], name="strong")
    names: dict[str, object] = {
        "cheap": cheap,
        "strong": strong,
        "Router": flowkit.Router,
        "UserMessage": UserMessage,
        "text_of": text_of,
    }
    exec(rule, names)
    router = names["model"]
    assert isinstance(router, flowkit.Router)
    picked = router.rule((UserMessage(text),), None)
    return "cheap" if picked is cheap else "strong"

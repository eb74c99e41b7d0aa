"""What a tool costs: to build it, and to validate and call it, against bare pydantic.

    python -m tests.bench.schema [--json]

The tool has six parameters (Literal, nested model, list, constrained, optional, default) and a Google docstring. The
other side is `pydantic.create_model` with its schema, whose descriptions are given and needn't be read, and a model's
`model_validate_json` with a call of the same function. Goals: 0.9 times to build, 1.3 times to validate and call.

Other frameworks do the same where they are installed (`tests/bench/peers`); they read all when they build.

"build" is what importing a module of tools costs: the signature is read and checked, and every mistake is told. The
schema and the docstring are read when a model first asks for them; "build and read all" counts them too.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from flowkit import Tool, tool
from flowkit.tools.schema.docstrings import read_docstring
from tests.bench.peers.found import AgentPeer, find_agents
from tests.bench.report import Report, compare, wants_json

BUILDS = 100
CALLS = 20_000
PEER_CALLS = 2_000


class Address(BaseModel):
    """Where something goes."""

    city: str
    zip_code: str


def define() -> Callable[..., Coroutine[Any, Any, str]]:
    """A new function, as an import makes one."""

    async def find(
        mode: Literal["fast", "exact"],
        address: Address,
        words: list[str],
        limit: Annotated[int, Field(ge=1, le=50)],
        score: float | None = None,
        note: str = "none",
    ) -> str:
        """Find things near an address.

        Args:
            mode: How to look.
            address: Where to look.
            words: What to look for;
                all must occur.
            limit: How many at most.
            score: The least score that counts.
            note: Whatever else matters.

        Returns:
            The best of them.
        """
        return mode

    return find


def build() -> Tool[..., Any]:
    return tool(define())


def build_and_read_all() -> None:
    read_docstring.cache_clear()
    made = build()
    assert made.parameters
    assert made.description


def create() -> type[BaseModel]:
    """The same as a model."""
    return create_model(
        "Find",
        mode=(Literal["fast", "exact"], Field(description="How to look.")),
        address=(Address, Field(description="Where to look.")),
        words=(list[str], Field(description="What to look for; all must occur.")),
        limit=(Annotated[int, Field(ge=1, le=50)], Field(description="How many at most.")),
        score=(float | None, Field(None, description="The least score that counts.")),
        note=(str, Field("none", description="Whatever else matters.")),
    )


def create_with_schema() -> None:
    assert create().model_json_schema()


ARGUMENTS = '{"mode": "fast", "limit": 3, "address": {"city": "Busan", "zip_code": "48058"}, "words": ["a", "b"]}'


def drive(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine that waits for nothing, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def repeat(count: int, run: Callable[[], object]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(count):
            run()

    return repeated


def repeat_waiting(count: int, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Calls that need a loop, one after another."""

    async def repeated() -> None:
        for _ in range(count):
            await call()

    asyncio.run(repeated())


def build_by(peer: AgentPeer) -> object:
    return peer.build(define())


def main(arguments: list[str]) -> Report:
    report = Report("schema", wants_json(arguments))
    made, model, function = build(), create(), define()

    def call_ours() -> object:
        return drive(made.invoke(made.validate(ARGUMENTS)))

    def run_ours() -> object:
        return drive(made.run(ARGUMENTS))

    def call_bare() -> object:
        return drive(function(**model.model_validate_json(ARGUMENTS).__dict__))

    assert call_ours() == call_bare() == run_ours() == "fast"
    for case, count, ours, others, goal, unit in (
        ("build", BUILDS, build, create_with_schema, 0.9, "ms"),
        ("build and read all", BUILDS, build_and_read_all, create_with_schema, None, "ms"),
        ("validate and call", CALLS, call_ours, call_bare, 1.3, "us"),
        ("Tool.run", CALLS, run_ours, call_bare, 1.3, "us"),
    ):
        first, second = compare(repeat(count, ours), repeat(count, others), rounds=7)
        add_row(report, case, first / count, second / count, goal, "pydantic", unit)
    for name, peer in find_agents(report).items():
        first, second = compare(repeat(BUILDS, build_and_read_all), repeat(BUILDS, partial(build_by, peer)))
        add_row(report, f"build and read all: {name}", first / BUILDS, second / BUILDS, None, name, "ms")
        call = peer.make_call(peer.build(define()), ARGUMENTS)
        assert asyncio.run(call()) == "fast"
        first, second = compare(repeat(PEER_CALLS, run_ours), partial(repeat_waiting, PEER_CALLS, call))
        add_row(report, f"Tool.run: {name}", first / PEER_CALLS, second / PEER_CALLS, None, name, "us")
    return report


def add_row(
    report: Report, case: str, ours_s: float, others_s: float, goal: float | None, other: str, unit: str
) -> None:
    scale = 1e3 if unit == "ms" else 1e6
    figures = {"ours": f"{ours_s * scale:.2f} {unit}", other: f"{others_s * scale:.2f} {unit}"}
    report.row(case, ours_s / others_s, goal, **figures)


if __name__ == "__main__":
    main(sys.argv[1:]).print()

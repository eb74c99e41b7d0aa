"""Requests to the apps in plain language, and the calls that they ask for, to judge the embedded model by.

Each file has six parts. The model's words and rules were written against `first`, `korean` and `beyond`; nobody looked
at `held`, `korean_held` and `beyond_held` while writing them. The requests of `beyond` and `beyond_held` ask for what no
tool of the app does, in both languages. Days without a date are counted from `NOW`. An expected text is exact but for
case, or one of `any`, or holds each of `has`. Any other request with no calls lacks something that has to be asked for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

import assistant
import knowledge
import shop
from flowkit.codec import JSON
from flowkit.messages import ToolSpec
from flowkit.tools.toolsets import Toolset

Part = Literal["first", "held", "korean", "korean_held", "beyond", "beyond_held"]
PARTS: tuple[Part, ...] = ("first", "held", "korean", "korean_held", "beyond", "beyond_held")
TOOLS: Mapping[str, Toolset] = {
    "shop": Toolset(
        shop.get_order_status,
        shop.search_products,
        shop.calculate_shipping,
        shop.track_parcel,
        shop.recommend_products,
        shop.return_order,
        shop.refund_order,
    ),
    "assistant": Toolset(*assistant.TOOLS),
    "knowledge": Toolset(
        knowledge.search_by_meaning, knowledge.search_by_words, knowledge.list_documents, knowledge.read_document
    ),
}


NOW = datetime(2026, 12, 1, 9, 0)
"""A Tuesday; the moment at which every request is made."""


@dataclass(frozen=True)
class Call:
    """A call that was made, or, with expectations in place of texts, one that should be."""

    name: str
    arguments: Mapping[str, JSON]


@dataclass(frozen=True)
class Case:
    """A request to one app and the calls that it asks for, in any order."""

    app: str
    part: Part
    request: str
    calls: tuple[Call, ...]

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools that the model is told of."""
        return TOOLS[self.app].specs()


def load_cases() -> list[Case]:
    """All requests, in the order of the files."""
    cases: list[Case] = []
    for app in TOOLS:
        parts = json.loads((Path(__file__).parent / f"{app}.json").read_text(encoding="utf-8"))
        for part in PARTS:
            for row in parts[part]:
                calls = tuple(Call(call["name"], call["arguments"]) for call in row["calls"])
                cases.append(Case(app, part, row["request"], calls))
    return cases


def are_tools_right(case: Case, made: Sequence[Call]) -> bool:
    """Whether exactly the tools that were meant were called."""
    return sorted(call.name for call in case.calls) == sorted(call.name for call in made)


def are_calls_right(case: Case, made: Sequence[Call]) -> bool:
    """Whether exactly the calls that were meant were made, with exactly their arguments."""
    return are_tools_right(case, made) and all(
        any(wanted.name == call.name and _fits(wanted.arguments, call.arguments) for call in made)
        for wanted in case.calls
    )


def _fits(wanted: Mapping[str, JSON], made: Mapping[str, JSON]) -> bool:
    return wanted.keys() == made.keys() and all(_is_meant(wanted[name], made[name]) for name in wanted)


def _is_meant(wanted: JSON, made: JSON) -> bool:
    if isinstance(wanted, dict):
        said = str(made).casefold()
        if "has" in wanted:
            return all(word.casefold() in said for word in cast(list[str], wanted["has"]))
        return said in [choice.casefold() for choice in cast(list[str], wanted["any"])]
    if isinstance(wanted, str):
        return wanted.casefold() == str(made).casefold()
    return wanted == made

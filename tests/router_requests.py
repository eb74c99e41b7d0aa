"""Sixty requests to a shop, everyday and hard, and two scripted models of different price that answer them.

The strong model answers each well. The cheap one answers everyday requests well and hard ones wrongly; for half of the
hard ones its failure shows on the way, in calls that come back with errors, so a rule that watches can still switch.
The rules were written with the requests of part `rules` in sight, and judged by those of part `held`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowkit import Agent, Message, Price, Router, ScriptedModel, ToolError, Usage, tool
from flowkit.messages import ToolMessage, UserMessage
from flowkit.models.base import Model, ModelRequest
from flowkit.models.scripted import Script, call

CHEAP = Price(input=0.4, output=1.6, cached=0.1)
STRONG = Price(input=2.0, output=8.0, cached=0.5)
"""What gpt-4.1-mini and gpt-4.1 cost."""

PREAMBLE_TOKENS = 900
"""Instructions and the schemas of a dozen tools."""

Kind = Literal["everyday", "hard"]
Rule = Callable[[tuple[Message, ...]], bool]
"""Whether the strong model should answer."""


@dataclass(frozen=True)
class ShopRequest:
    """What a customer asked, and what became known of it later."""

    part: Literal["rules", "held"]
    kind: Kind
    shows: bool
    text: str


@dataclass(frozen=True)
class Outcome:
    """What a rule came to: US dollars for all requests, and how many were answered by the wrong model."""

    cost_usd: float
    answered_wrongly: int
    wasted: int


@tool(effect="read")
def look_up(query: str) -> str:
    """Look something up in the shop."""
    if query == "?":
        raise ToolError("no such order, product or place")
    return "found"


def load_requests(part: Literal["rules", "held"]) -> list[ShopRequest]:
    """The requests of this part."""
    lines = (Path(__file__).parent / "data" / "router_requests.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [
        ShopRequest(
            "rules" if row[0] == "rules" else "held",
            "hard" if row[1] == "hard" else "everyday",
            row[2] == "yes",
            row[3],
        )
        for row in rows
        if row[0] == part
    ]


def never(messages: tuple[Message, ...]) -> bool:
    """Always the cheap model."""
    return False


def always(messages: tuple[Message, ...]) -> bool:
    """Always the strong model."""
    return True


def by_length(messages: tuple[Message, ...]) -> bool:
    """Long questions are hard; a Korean letter says as much as two or three Latin ones."""
    return _weight(_question(messages)) > 90


_HARD_WORDS = re.compile(
    r"\b(compar|why|plan|explain|work out|which one is (right|best)|best for me|write|calculate|options|instead)"
    r"|비교|계산|설명|써 주세요|왜",
    re.IGNORECASE,
)


def by_words(messages: tuple[Message, ...]) -> bool:
    """Hard questions compare, plan, explain or ask for a text, or set several conditions at once."""
    text = _question(messages)
    conditions = len(
        re.findall(r"\b(if|without|but|at most|and say|so that|still)\b|면서|하면|않으면", text, re.IGNORECASE)
    )
    return bool(_HARD_WORDS.search(text)) or conditions >= 2


def by_words_and_errors(messages: tuple[Message, ...]) -> bool:
    """As `by_words`, and the strong model takes over when a call has failed on the way."""
    failed = any(isinstance(message, ToolMessage) and message.is_error for message in messages)
    return failed or by_words(messages)


RULES: dict[str, Rule] = {
    "always strong": always,
    "always cheap": never,
    "by length": by_length,
    "by words": by_words,
    "by words and errors": by_words_and_errors,
}


def judge(rule: Rule, requests: list[ShopRequest]) -> Outcome:
    """Run an agent on each request and see who answered."""
    by_text = {request.text: request for request in requests}
    cheap = ScriptedModel(lambda request: _say(request, by_text, can_all=False), name="cheap", price=CHEAP)
    strong = ScriptedModel(lambda request: _say(request, by_text, can_all=True), name="strong", price=STRONG)

    def pick(messages: tuple[Message, ...], data: object) -> Model:
        return strong if rule(messages) else cheap

    agent = Agent(Router(pick, cheap, strong), tools=[look_up], cache=False)
    cost_usd, answered_wrongly, wasted = 0.0, 0, 0
    for request in requests:
        before = len(strong.requests)
        result = agent.run_sync(request.text)
        assert result.cost is not None
        cost_usd += result.cost
        answered_wrongly += result.output == "wrong"
        wasted += request.kind == "everyday" and len(strong.requests) > before
    return Outcome(cost_usd, answered_wrongly, wasted)


def _say(request: ModelRequest, by_text: dict[str, ShopRequest], *, can_all: bool) -> Script:
    """One turn looks something up, the next answers; hard answers are longer, and tokens are counted by letters."""
    asked = by_text[_question(request.messages)]
    can = can_all or asked.kind == "everyday"
    input_tokens = PREAMBLE_TOKENS + sum(_weight(str(message.to_json())) for message in request.messages) // 4
    last = request.messages[-1]
    if not isinstance(last, ToolMessage) or (last.is_error and can):
        return [call("look_up", query="?" if asked.shows and not can else "it"), Usage(input_tokens, 30)]
    output_tokens = 60 if asked.kind == "everyday" else 350
    return ["right" if can else "wrong", Usage(input_tokens, output_tokens)]


def _question(messages: tuple[Message, ...]) -> str:
    return next(str(message.content) for message in reversed(messages) if isinstance(message, UserMessage))


def _weight(text: str) -> int:
    return sum(1 if letter.isascii() else 3 for letter in text)

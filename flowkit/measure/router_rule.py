"""A rule for a `Router`, derived from a measurement: which requests need the strong model.

The strong model is the one with the most correct cases; each cheaper one is tried with it. Like a router, a rule sees
only the request: its length and its words. The words are taken from cases that the cheap model gets wrong and the
strong one right, and only if they occur in no other case. Of the candidate rules, the one with the fewest wrong cases
is proposed, and among those the cheapest.

A rule that is evaluated on the cases it was derived from looks too good. So each case is also judged by a rule derived
without it (leave-one-out): these figures are shown beside the others, and are the reliable ones.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flowkit.measure.records import Measured
from flowkit.measure.words import say_cost

MOST_WORDS = 8
MOST_LENGTHS = 20
FEWEST_CASES = 4
"""Fewer cases say nothing about requests to come."""


@dataclass(frozen=True, slots=True)
class Request:
    """One case as a rule sees it, with each model's mean cost, and whether it was mostly right."""

    name: str
    text: str
    cost_usd: Mapping[str, float]
    is_right: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """Send a request to the strong model if it is longer than so many characters, or holds one of these words."""

    longer_than: int | None = None
    words: tuple[str, ...] = ()

    def is_hard(self, text: str) -> bool:
        """Return whether this request goes to the strong model."""
        said = text.casefold()
        is_long = self.longer_than is not None and len(text) > self.longer_than
        return is_long or any(word in said for word in self.words)


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """A rule's cost on some cases, and the cases it would send to a model that gets them wrong."""

    cost_usd: float
    sent_wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A rule for two models; `strong_cost_usd` is the cost of always calling the strong one, `left_out` the outcome on
    cases that the rule wasn't made from."""

    cheap: str
    strong: str
    rule: Rule
    cases: int
    strong_right: int
    strong_cost_usd: float
    outcome: RuleOutcome
    left_out: RuleOutcome


def propose(measured: Measured) -> Proposal | str:
    """Derive a rule; if there is none, return a sentence that explains it."""
    requests = read_requests(measured)
    priced = [model for model in measured.models if all(model in request.cost_usd for request in requests)]
    if not requests or all(
        not run.wrong and run.calls_right is None and run.answer_right is None for run in measured.runs
    ):
        return "no router is proposed: the cases judge nothing, add calls or answers to them"
    if len(measured.models) < 2:
        return "no router is proposed: there is only one model"
    if len(priced) < 2:
        return "no router is proposed: prices aren't known; --price NAME=INPUT/OUTPUT gives one in $ per million tokens"
    if len(requests) < FEWEST_CASES:
        return f"no router is proposed: {len(requests)} cases are too few, {FEWEST_CASES} at least"
    strong = max(priced, key=lambda model: (_count_right(model, requests), -_cost(model, requests)))
    cheaper = [model for model in priced if _cost(model, requests) < _cost(strong, requests)]
    if not cheaper:
        return f"no router is proposed: {strong} gets the most right, and is the cheapest"
    proposals = [_propose(cheap, strong, requests) for cheap in cheaper]
    best = min(proposals, key=_rank)
    if best.outcome.cost_usd >= best.strong_cost_usd:
        return f"no router is proposed: no rule saves anything over always asking {strong}"
    return best


def read_requests(measured: Measured) -> tuple[Request, ...]:
    """Read the cases that every model was asked, with each one's results; a cost only where every run has one."""
    requests: list[Request] = []
    for case in measured.cases:
        runs = [run for run in measured.runs if run.case == case]
        cost: dict[str, float] = {}
        right: dict[str, bool] = {}
        for model in measured.models:
            own = [run for run in runs if run.model == model]
            costs = [run.cost_usd for run in own if run.cost_usd is not None]
            if own and len(costs) == len(own):
                cost[model] = sum(costs) / len(costs)
            right[model] = bool(own) and sum(run.is_right for run in own) * 2 > len(own)
        if runs and {run.model for run in runs}.issuperset(measured.models):
            requests.append(Request(case, runs[0].message, cost, right))
    return tuple(requests)


def write_proposal(proposal: Proposal) -> Iterator[str]:
    """Write the rule as a program, with its results."""
    saved = 1 - proposal.outcome.cost_usd / proposal.strong_cost_usd
    later = 1 - proposal.left_out.cost_usd / proposal.strong_cost_usd
    yield f"a router that asks {proposal.cheap} first:"
    yield ""
    yield from (f"    {line}" for line in write_rule(proposal).splitlines())
    yield ""
    yield (
        f"on these {proposal.cases} cases: saves {saved:.0%} of {say_cost(proposal.strong_cost_usd)}, "
        f"{len(proposal.outcome.sent_wrong)} sent wrong"
    )
    yield f"each case by a rule made without it: saves {later:.0%}, {len(proposal.left_out.sent_wrong)} sent wrong"
    if proposal.left_out.sent_wrong:
        yield f"  such as: {', '.join(proposal.left_out.sent_wrong[:3])}"


def write_rule(proposal: Proposal) -> str:
    """Write the rule in Python; `cheap` and `strong` are the two models."""
    conditions: list[str] = []
    if proposal.rule.longer_than is not None:
        conditions.append(f"len(said) > {proposal.rule.longer_than}")
    if proposal.rule.words:
        conditions.append("any(word in said.casefold() for word in WORDS)")
    words = f"WORDS = {proposal.rule.words!r}\n\n" if proposal.rule.words else ""
    body = f"strong if {' or '.join(conditions)} else cheap" if conditions else "cheap"
    return (
        f"# cheap is {proposal.cheap}, strong is {proposal.strong}\n{words}def choose(messages, data):\n"
        f"    said = next(text_of(m.content) for m in reversed(messages) if isinstance(m, UserMessage))\n"
        f"    return {body}\n\nmodel = Router(choose, cheap, strong)\n"
    )


def judge(rule: Rule, cheap: str, strong: str, requests: Sequence[Request]) -> RuleOutcome:
    """Judge the rule on these cases. A case is sent wrongly if only the strong model gets it right."""
    cost, wrong = 0.0, list[str]()
    for request in requests:
        chosen = strong if rule.is_hard(request.text) else cheap
        cost += request.cost_usd[chosen]
        if request.is_right[strong] and not request.is_right[chosen]:
            wrong.append(request.name)
    return RuleOutcome(cost, tuple(wrong))


def make_rule(cheap: str, strong: str, requests: Sequence[Request]) -> Rule:
    """Make the rule that sends the fewest of these cases wrong; of those the cheapest, of those the simplest."""
    lengths = sorted({len(request.text) for request in requests})
    lengths = lengths[:: -(-len(lengths) // MOST_LENGTHS)]
    words = tuple(_choose_words(cheap, strong, requests))
    limits = [None, *(sum(pair) // 2 for pair in pairwise(lengths))]  # between two requests, not at one
    rules = [Rule(limit, chosen) for chosen in dict.fromkeys([(), words]) for limit in limits]

    def rank(rule: Rule) -> tuple[int, float, int]:
        outcome = judge(rule, cheap, strong, requests)
        return len(outcome.sent_wrong), outcome.cost_usd, (rule.longer_than is not None) + len(rule.words)

    return min(rules, key=rank)


def _propose(cheap: str, strong: str, requests: Sequence[Request]) -> Proposal:
    cost, wrong = 0.0, list[str]()
    for number, request in enumerate(requests):
        others = [*requests[:number], *requests[number + 1 :]]
        outcome = judge(make_rule(cheap, strong, others), cheap, strong, [request])
        cost += outcome.cost_usd
        wrong += outcome.sent_wrong
    rule = make_rule(cheap, strong, requests)
    return Proposal(
        cheap=cheap,
        strong=strong,
        rule=rule,
        cases=len(requests),
        strong_right=_count_right(strong, requests),
        strong_cost_usd=_cost(strong, requests),
        outcome=judge(rule, cheap, strong, requests),
        left_out=RuleOutcome(cost, tuple(wrong)),
    )


def _rank(proposal: Proposal) -> tuple[int, int, float]:
    return len(proposal.outcome.sent_wrong), len(proposal.left_out.sent_wrong), proposal.outcome.cost_usd


def _choose_words(cheap: str, strong: str, requests: Sequence[Request]) -> Iterator[str]:
    """Choose, one after the other, the words that name the most hard cases and no other, until all are named."""
    hard = {request for request in map(_as_words, requests) if _is_hard(request.request, cheap, strong)}
    easy = [request for request in map(_as_words, requests) if request not in hard]
    left = set(hard)
    for _ in range(MOST_WORDS):
        candidates = sorted({word for request in left for word in request.words})
        counted = [
            (sum(word in other.said for other in left), word)
            for word in candidates
            if not any(word in other.said for other in easy)
        ]
        if not counted:
            return
        _, best = max(counted, key=lambda item: (item[0], len(item[1]), item[1]))
        yield best
        left = {request for request in left if best not in request.said}


@dataclass(frozen=True, slots=True)
class _Words:
    name: str
    said: str
    words: frozenset[str]
    request: Request

    def __hash__(self) -> int:
        return hash(self.name)


def _as_words(request: Request) -> _Words:
    said = request.text.casefold()
    # Names, numbers and single letters tell one request from another, not one kind from another.
    words = frozenset(word for word in re.findall(r"[^\W\d_]{2,}", said) if len(word) > 2 or not word.isascii())
    return _Words(request.name, said, words, request)


def _is_hard(request: Request, cheap: str, strong: str) -> bool:
    return request.is_right[strong] and not request.is_right[cheap]


def _count_right(model: str, requests: Sequence[Request]) -> int:
    return sum(request.is_right[model] for request in requests)


def _cost(model: str, requests: Sequence[Request]) -> float:
    return sum(request.cost_usd[model] for request in requests)

"""What rules for a router save, and what they send to the wrong model: `python -m tests.bench.router [--json]`.

Money against always asking the strong model, on 30 requests that the rules were not written for. `wrong` counts hard
requests that the cheap model answered, `wasted` everyday ones that the strong model answered.
"""

import sys

from tests.bench.report import Report
from tests.router_requests import RULES, judge, load_requests


def main() -> None:
    """Print the figures of every rule."""
    report = Report("router", "--json" in sys.argv)
    for part in ("rules", "held"):
        requests = load_requests(part)
        outcomes = {name: judge(rule, requests) for name, rule in RULES.items()}
        strong = outcomes["always strong"].cost_usd
        hard = sum(request.kind == "hard" for request in requests)
        for name, outcome in outcomes.items():
            report.row(
                f"{part}: {name}",
                outcome.cost_usd / strong,
                None,
                saved=f"{1 - outcome.cost_usd / strong:.0%}",
                wrong=f"{outcome.answered_wrongly} of {hard}",
                wasted=f"{outcome.wasted} of {len(requests) - hard}",
            )
    report.print()


if __name__ == "__main__":
    main()

"""How often the embedded model is right on services that its rules never saw: `python -m tests.bench.korean_services`.

The share of Korean requests where it chose the wrong tools, and where anything at all was wrong with its calls.
`--wrong` prints those of the development list; of the held-out list it prints nothing.
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "recipes"))

from flowkit.models.offline.local import LocalModel, start_local_model
from tests.bench.local_model import ask
from tests.bench.report import Report, wants_json
from tests.evaluation import NOW, Call, Case, are_calls_right, are_tools_right
from tests.evaluation.services import load_services

GOALS = {"wrong tools": 0.1, "wrong calls": 0.25}


def main() -> None:
    """Print the shares of both lists, of the requests that a tool serves and of those where nothing is to be called."""
    report = Report("korean_services", wants_json(sys.argv))

    async def go(model: LocalModel) -> None:
        for name in ("services", "services_development"):
            right: Counter[tuple[str, str]] = Counter()
            for service, specs, request, calls in load_services(name):
                made = await ask(model, specs, request)
                case = Case(service, "korean_held", request, calls)
                kind = "served" if calls else "nothing to call"
                right[kind, ""] += 1
                right[kind, "wrong tools"] += are_tools_right(case, made)
                right[kind, "wrong calls"] += are_calls_right(case, made)
                if "--wrong" in sys.argv and name == "services_development" and not are_calls_right(case, made):
                    print(service, request, *(Call(call.name, dict(call.arguments)) for call in made), sep="\n    ")
            for kind in ("served", "nothing to call"):
                whole = right[kind, ""]
                for what, goal in GOALS.items():
                    share = 1 - right[kind, what] / whole
                    limit = goal if name == "services" else None
                    report.row(f"{name}, {kind}: {what}", share, limit, right=f"{right[kind, what]} of {whole}")
        await model.aclose()

    with start_local_model(now=lambda: NOW) as model:
        asyncio.run(go(model))
    report.print()


if __name__ == "__main__":
    main()

"""How often the embedded model is right on services that its rules never saw: `python -m tests.bench.korean_services`.

The share of requests where it chose the wrong tools, and where anything at all was wrong with its calls.
`--wrong` prints those of the development list; of the held-out list it prints nothing. The calls are read off the
grammar that llama.cpp writes under, which mostly leaves one text; of several values the first is taken. `--whole` lets
it write all of them, which takes minutes.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "recipes"))

from flowkit.codec import JSON
from flowkit.messages import ToolSpec
from flowkit.models.offline.choosing import choose_calls
from flowkit.models.offline.embeddings import SentenceEmbedder
from flowkit.models.offline.korean import is_korean
from flowkit.models.offline.local import LocalModel, start_local_model
from tests.bench.local_model import ask
from tests.bench.report import Report, wants_json
from tests.evaluation import NOW, Call, Case, are_calls_right, are_tools_right
from tests.evaluation.services import SERVICES, load_services

GOALS = {"wrong tools": 0.1, "wrong calls": 0.25}


def read_grammar(embedder: SentenceEmbedder, tools: Sequence[ToolSpec], request: str) -> list[Call]:
    """The calls that the grammar leaves, with the first of several values."""
    choices = choose_calls(embedder, request, tools, NOW)
    return [Call(choice.tool.name, dict(_first_values(choice.grounded.schema))) for choice in choices.calls]


def _first_values(schema: Mapping[str, JSON]) -> Iterator[tuple[str, JSON]]:
    for name, value in cast(Mapping[str, Mapping[str, JSON]], schema["properties"]).items():
        yield name, cast(list[JSON], value["enum"])[0] if "enum" in value else value.get("const")


def main() -> None:
    """Print the shares of both lists, of the requests that a tool serves and of those where nothing is to be called."""
    report = Report("korean_services", wants_json(sys.argv))
    made: dict[tuple[str, str], list[Call]] = {}
    lists = {name: load_services(name) for name in ("services", "services_development", "development")}
    fresh = load_services("fresh")
    lists["fresh, Korean"] = [row for row in fresh if is_korean(row[2])]
    lists["fresh, English"] = [row for row in fresh if not is_korean(row[2])]
    asked = [(service, specs, request) for rows in lists.values() for service, specs, request, _ in rows]
    if "--whole" in sys.argv:

        async def go(model: LocalModel) -> None:
            for service, specs, request in asked:
                made[service, request] = await ask(model, specs, request)
            await model.aclose()

        with start_local_model(now=lambda: NOW) as model:
            asyncio.run(go(model))
    else:
        embedder = SentenceEmbedder()
        for service, specs, request in asked:
            made[service, request] = read_grammar(embedder, specs, request)
    for name, rows in lists.items():
        right: Counter[tuple[str, str]] = Counter()
        written = 0
        for service, _, request, calls in rows:
            done = made[service, request]
            case = Case(service, "korean_held", request, calls)
            kind = "served" if calls else "nothing to call"
            right[kind, ""] += 1
            right[kind, "wrong tools"] += are_tools_right(case, done)
            right[kind, "wrong calls"] += are_calls_right(case, done)
            writes = {tool.name for tool in SERVICES[service] if tool.effect != "read"}
            written += not calls and any(call.name in writes for call in done)
            if "--wrong" in sys.argv and name.endswith("development") and not are_calls_right(case, done):
                print(service, request, *done, sep="\n    ")
        for kind in ("served", "nothing to call"):
            whole = right[kind, ""]
            for what, goal in GOALS.items():
                limit = None if name.endswith("development") else goal
                share = 1 - right[kind, what] / whole
                report.row(f"{name}, {kind}: {what}", share, limit, right=f"{right[kind, what]} of {whole}")
        report.row(f"{name}, nothing to call: writes called", written / right["nothing to call", ""], None)
    report.print()


if __name__ == "__main__":
    main()

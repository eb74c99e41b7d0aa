"""What `import flowkit` costs over a bare interpreter, against importing pydantic and making one model class.

python -m tests.bench.imports [--json]
"""

import statistics
import subprocess
import sys

from tests.bench.report import Report

PROGRAMS = {
    "bare": "pass",
    "pydantic": "import pydantic\nclass M(pydantic.BaseModel):\n    name: str\n    size: int = 0",
    "flowkit": "import flowkit",
    "tools": "from flowkit import tool\n@tool\ndef get(name: str, size: int = 0) -> str:\n    'Get it.'\n    return name",
    "agent": "from flowkit import Agent, Needs, Recorder, ScriptedModel, tool",
}
GOAL = 1.5


def measure(rounds: int = 15) -> dict[str, float]:
    """Seconds of CPU for each program, the median of interleaved runs in fresh interpreters."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            times[name].append(_run(program))
    return {name: statistics.median(values) for name, values in times.items()}


def _run(program: str) -> float:
    command = [sys.executable, "-c", f"{program}\nimport time; print(time.process_time())"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed)


def main() -> None:
    report = Report("imports", "--json" in sys.argv)
    times = measure()
    base = times["pydantic"] - times["bare"]
    for name, goal in (("flowkit", GOAL), ("tools", None), ("agent", None)):
        cost = times[name] - times["bare"]
        report.row(
            {"flowkit": "import flowkit", "tools": "one tool made", "agent": "agent's names used"}[name],
            cost / base,
            goal,
            cost_ms=round(cost * 1000, 1),
            pydantic_ms=round(base * 1000, 1),
        )
    report.print()


if __name__ == "__main__":
    main()

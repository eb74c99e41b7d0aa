"""What a program prints in processes that order sets and hash texts otherwise."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def print_under_seeds(program: str) -> set[str]:
    """Run the program under two hash seeds, and return what it printed; one text if both printed the same."""
    return {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

#!/usr/bin/env bash
# Dask distributed 2026.8.0: one function that is submitted twice with the same arguments.
# Expected by most: `submit` runs it twice, as `concurrent.futures` does, whose interface it follows.
# Seen: it runs once, and both futures are that one task: functions are taken as pure unless one says otherwise. `map`
# over a list with two equal items runs one of them. When the first future is dropped, the next submission runs again.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0
TMPDIR="$work" "$work/venv/bin/python" - <<'PYTHON'
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distributed import Client

warnings.simplefilter("ignore")
SHIPPED = tempfile.mkdtemp()


def ship(folder: str, parcel: str) -> str:
    with Path(folder, "shipped").open("a") as log:
        log.write(f"{parcel}\n")
    return parcel


def shipped(parcel: str) -> int:
    return Path(SHIPPED, "shipped").read_text().split("\n").count(parcel)


with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
    first, second = client.submit(ship, SHIPPED, "a mug"), client.submit(ship, SHIPPED, "a mug")
    client.gather([first, second])
    print("two submissions, shipped", shipped("a mug"), first.key == second.key)
    assert shipped("a mug") == 1 and first.key == second.key
    client.gather(client.map(ship, [SHIPPED] * 3, ["a cup", "a cup", "a bowl"]))
    assert (shipped("a cup"), shipped("a bowl")) == (1, 1)
    client.gather([client.submit(ship, SHIPPED, "a jar", pure=False) for _ in range(2)])
    assert shipped("a jar") == 2
with ThreadPoolExecutor(1) as pool:
    for future in [pool.submit(ship, SHIPPED, "a pan") for _ in range(2)]:
        future.result()
assert shipped("a pan") == 2
PYTHON
echo "as stated"

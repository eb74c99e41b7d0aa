"""Where a fleet of workers over one PostgreSQL meets its first limit: `python -m tests.bench.fleet [--measure] [--json]`.

A simulation in virtual time. Runs begin at random, last five seconds and write as an agent with four turns, eight
reads and two writes does. Each worker process has one writer, which sends together what came while its last statement
was on its way; a shard is a PostgreSQL server with some cores and one log, whose flush takes along all commits that
wait. What a statement, a row and a job of the queue cost is `COSTS`, measured with `--measure` on a real server: the
processor time of all its processes, so that a busy machine doesn't matter. How long a flush takes, and how much log a
disk takes, are the disk's, and stated.

A rate is carried while the 99th percentile of claims is under `CLAIM_S` and nothing piles up. Busy cores alone are no
limit: a statement that is longer on its way takes more along, so there are fewer of them. The first limit is the
resource that is busiest at the highest rate that is carried.
"""

import heapq
import random
import statistics
import sys
from dataclasses import dataclass, field, replace

from tests.bench.report import Report, wants_json


@dataclass(frozen=True, slots=True)
class Costs:
    """What the servers do for a fleet; processor time in seconds."""

    statement_s: float = 1.5e-3
    """One commit with its statements, whatever is in it."""
    row_s: float = 40e-6
    """Each row in it, its index included, and what a run opens and reads."""
    row_log_bytes: float = 490
    """What a row adds to the log; the first change of a page after a checkpoint, which copies it, left out."""
    job_s: float = 2.3e-3
    """A run that goes through the queue: put, fetched, removed."""
    poll_s: float = 0.74e-3
    """A look for new events of one run."""
    flush_s: float = 1e-3
    """Stated: how long a cloud disk takes to store the log's end."""
    log_bytes_per_s: float = 200e6
    """Stated: how much log a disk takes."""
    network_s: float = 0.5e-3
    """Stated: there and back."""


COSTS = Costs()
"""Measured on PostgreSQL 15.18 by `--measure`, on two busy cores of an x86-64 machine."""

RUN_S = 5.0
CLAIM_S = 0.1
"""How long a write of a tool may wait for its claim, in 99 of 100 cases."""
POLL_EVERY_S = 1.0
NODES, TURNS, PIECES, EVENTS = 10, 4, 14, 65
"""What a run writes: nodes (two of them claimed before, durably), turns, and events in so many pieces."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated."""

    runs_per_s: float
    replicas: int = 100
    shards: int = 1
    cores: int = 16
    events: str = "all"
    watched: float = 0.2
    """The part of the runs that somebody follows from another process."""
    is_queued: bool = True
    sessions: int | None = None
    """How many sessions the runs belong to; each is in one shard. None: many more than runs."""


@dataclass(slots=True)
class Shard:
    """A server: when each core is free, when its log is, and how long both were busy."""

    cores: list[float]
    flushed_at: float = 0.0
    flush_begins_at: float = 0.0
    busy_s: float = 0.0
    rows: int = 0
    statements: int = 0

    def work(self, now: float, cost_s: float) -> float:
        """Take a core for so long; returns when it is done."""
        begins = max(now, heapq.heappop(self.cores))
        heapq.heappush(self.cores, begins + cost_s)
        self.busy_s += cost_s
        return begins + cost_s

    def flush(self, now: float, costs: Costs) -> float:
        """Wait for the log: a flush that hasn't begun takes this commit along."""
        if now > self.flush_begins_at:
            self.flush_begins_at = max(now, self.flushed_at)
            self.flushed_at = self.flush_begins_at + costs.flush_s
        return self.flushed_at


@dataclass(slots=True)
class Writer:
    """A process's one writer to one shard: what waits, and whether a statement is on its way."""

    waiting: list[tuple[float, int, bool]] = field(default_factory=list[tuple[float, int, bool]])
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it; `used` is how much of each resource, the busiest shard's."""

    claim_p50_s: float
    claim_p99_s: float
    used: dict[str, float]
    skew: float
    statements_per_s: float

    @property
    def is_carried(self) -> bool:
        return self.claim_p99_s <= CLAIM_S and self.used["log"] < 0.95 and self.used["rows"] < 0.95

    @property
    def limit(self) -> str:
        return "cores" if self.used["cores"] >= self.used["log"] else "log"


def list_kinds(fleet: Fleet) -> list[tuple[int, bool]]:
    """What one run writes: how many rows each time, and whether it waits for the disk."""
    kept = {"all": 1.0, "calls": 0.45, "none": 0.0}[fleet.events]
    rows = round(EVENTS * kept)
    pieces = [(rows // PIECES + (piece < rows % PIECES), False) for piece in range(PIECES)] if rows else []
    # A begin and an end; two claims, and what came of them; the rest of the nodes, and the turns.
    return [(1, False)] * 2 + [(1, True)] * 4 + [(1, False)] * (NODES - 2 + TURNS) + pieces


def simulate(fleet: Fleet, costs: Costs = COSTS, *, seconds: float = 0.6, seed: int = 1) -> Found:
    """Let a fleet that has been at work for long go on for so many seconds."""
    chance = random.Random(seed)
    kinds = list_kinds(fleet)
    shards = [Shard([0.0] * fleet.cores) for _ in range(fleet.shards)]
    writers = [[Writer() for _ in shards] for _ in range(fleet.replicas)]
    # Where each session is kept: their hash, which is as good as chance.
    homes = [chance.randrange(fleet.shards) for _ in range(fleet.sessions or 0)]
    # What the queue and the followers do is spread evenly, and takes its part of the cores.
    watched_s = fleet.watched * RUN_S / POLL_EVERY_S * costs.poll_s
    beside_s = fleet.runs_per_s * (watched_s + fleet.is_queued * costs.job_s)
    beside = min(0.95, beside_s / fleet.shards / fleet.cores)
    sent: list[tuple[float, int, int]] = []
    """Statements on their way: when they are back, whose, and at which server."""
    claims: list[float] = []

    def send(replica: int, place: int, now: float) -> None:
        writer, shard = writers[replica][place], shards[place]
        batch, writer.waiting, writer.is_busy = writer.waiting, [], True
        rows = sum(write[1] for write in batch)
        done = shard.work(now + costs.network_s / 2, (costs.statement_s + rows * costs.row_s) / (1 - beside))
        shard.rows += rows
        shard.statements += 1
        if any(write[2] for write in batch):
            done = shard.flush(done, costs)
        done += costs.network_s / 2
        claims.extend(done - write[0] for write in batch if write[2])
        heapq.heappush(sent, (done, replica, place))

    rate = fleet.runs_per_s * len(kinds)
    arrives = chance.expovariate(rate)
    while arrives < seconds:
        if sent and sent[0][0] <= arrives:
            now, replica, place = heapq.heappop(sent)
            writers[replica][place].is_busy = False
        else:
            now, replica = arrives, chance.randrange(fleet.replicas)
            place = chance.choice(homes) if homes else chance.randrange(fleet.shards)
            writers[replica][place].waiting.append((now, *chance.choice(kinds)))
            arrives += chance.expovariate(rate)
        if writers[replica][place].waiting and not writers[replica][place].is_busy:
            send(replica, place, now)
    rows = [shard.rows for shard in shards]
    used = {
        "cores": max(shard.busy_s for shard in shards) * (1 - beside) / seconds / fleet.cores + beside,
        # What no batch makes less: the rows, the queue and the followers.
        "rows": max(rows) / seconds * costs.row_s / fleet.cores + beside,
        "log": max(rows) / seconds * costs.row_log_bytes / costs.log_bytes_per_s,
    }
    return Found(
        statistics.median(claims),
        statistics.quantiles(claims, n=100)[98],
        used,
        max(rows) / statistics.mean(rows),
        sum(shard.statements for shard in shards) / seconds,
    )


def find_most(fleet: Fleet, costs: Costs = COSTS) -> tuple[float, Found]:
    """The highest rate that is carried, to a tenth, and how it is there."""
    low, high = 10.0, 20.0
    best = simulate(replace(fleet, runs_per_s=low), costs)
    while (found := simulate(replace(fleet, runs_per_s=high), costs)).is_carried:
        low, high, best = high, 2 * high, found
        if high > 20_000:
            break
    while high / low > 1.1:
        middle = (low * high) ** 0.5
        found = simulate(replace(fleet, runs_per_s=middle), costs)
        if found.is_carried:
            low, best = middle, found
        else:
            high = middle
    return low, best


def main() -> None:
    """Print the table."""
    report = Report("fleet", wants_json(sys.argv))
    costs = COSTS
    if "--measure" in sys.argv:
        from tests.bench.fleet_costs import measure_costs

        costs = measure_costs(COSTS)
        report.note(f"measured now: {costs}")
    wanted = Fleet(1000)
    for events in ("all", "calls", "none"):
        for shards in (1, 2, 4, 8):
            fleet = replace(wanted, events=events, shards=shards)
            if events != "all" and shards > 2:
                continue
            most, at_most = find_most(fleet, costs)
            found = simulate(fleet, costs)
            report.row(
                f"events={events}, {shards} {'server' if shards == 1 else 'servers'} of {fleet.cores} cores",
                1000 / most,
                1.0 if shards > 1 else None,
                carries=f"{most:.0f} runs/s",
                first=at_most.limit,
                at_1000=", ".join(f"{name} {part:.0%}" for name, part in found.used.items()),
                claim=f"p50 {1000 * found.claim_p50_s:.1f} p99 {1000 * found.claim_p99_s:.1f} ms",
                statements=f"{found.statements_per_s:.0f}/s",
            )
    for sessions in (1000, 100, 20):
        skew = simulate(replace(wanted, shards=4, sessions=sessions), costs).skew
        report.row(f"4 servers, {sessions} sessions at a time", skew, None, fullest="its part of the mean")
    report.note(
        f"ratio: 1,000 runs a second by what is carried; {wanted.replicas} processes, runs of {RUN_S:g} s, "
        f"{wanted.watched:.0%} of them followed from another process; stated: a flush of {1000 * costs.flush_s:g} ms, "
        f"{costs.log_bytes_per_s / 1e6:.0f} MB/s of log, {1000 * costs.network_s:g} ms there and back"
    )
    report.print()
    sys.exit(0 if report.is_met else 1)


if __name__ == "__main__":
    main()

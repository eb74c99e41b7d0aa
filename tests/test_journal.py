"""The journal: what is written when, who may write, and what a later process finds."""

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.clock import ManualClock
from flowkit.codec import JSON
from flowkit.errors import CodeChanged, InDoubt, RunBusy, RunError, StoreError, ToolResultError
from flowkit.events import CallFinished, EventLog, TextDelta
from flowkit.journal import Done, Fail, Journal, Recorded, Resolution, Retry, RunJournal, default_journal_path
from flowkit.journal.driver_lease import Holder, RunLease, this_process
from flowkit.messages import AssistantMessage, UserMessage
from tests.stores import opened_journal, pretend_another_machine

pytestmark = pytest.mark.usefixtures("journal_store")

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


def with_run(path: Path, act: Callable[[RunJournal], Awaitable[None]], run_id: str = "r", **options: object) -> None:
    """Open the journal and a run, act, let go of it."""

    async def main() -> None:
        with opened_journal(path) as journal:
            run = await journal.open_run(run_id, name="n", code="c1", **options)  # pyright: ignore[reportArgumentType]
            try:
                await act(run)
            finally:
                await run.close()

    asyncio.run(main())


async def claim(run: RunJournal, node: str, effect: str = "write", code: str = "t1") -> int:
    assert effect in ("read", "idempotent", "write")
    return await run.claim(node, tool="refund", code=code, effect=effect, arguments={"order": "ORD-1"})


# What is recorded


def test_what_was_recorded_is_found_by_the_next_process(tmp_path: Path) -> None:
    async def first(run: RunJournal) -> None:
        assert run.lookup("read") is None
        await run.record(
            "read", state="finished", value={"a": [1, None]}, effect="read", tool="get", arguments={"n": 1}
        )
        assert await claim(run, "write") == 1
        await run.record("write", state="failed", error="sold out", effect="write", attempt=1)
        assert run.lookup("write") is not None

    async def second(run: RunJournal) -> None:
        assert run.lookup("read") == Recorded("read", "finished", {"a": [1, None]}, arguments={"n": 1}, tool="get")
        assert run.lookup("write") == Recorded(
            "write", "failed", None, "sold out", 1, "write", {"order": "ORD-1"}, "refund", "t1"
        )

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)


def test_a_turn_and_its_reads_are_one_transaction(tmp_path: Path) -> None:
    message: JSON = {"role": "assistant", "text": "I look."}

    async def first(run: RunJournal) -> None:
        await run.record_turn(1, message, [Recorded("turn/1/call/0", "finished", 7)])
        found = run.lookup("turn/1/call/0")
        assert found is not None
        assert found.value == 7

    async def second(run: RunJournal) -> None:
        assert [(turn.turn, turn.message) for turn in run.turns] == [(1, message)]
        assert run.lookup("turn/1/call/0") == Recorded("turn/1/call/0", "finished", 7)

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)


def test_a_turn_whose_read_is_not_json_records_nothing(tmp_path: Path) -> None:
    async def act(run: RunJournal) -> None:
        with pytest.raises(ToolResultError):
            await run.record_turn(1, {}, [Recorded("a", "finished", 1), Recorded("b", "finished", float("nan"))])
        assert run.turns == ()
        assert run.lookup("a") is None

    with_run(tmp_path / "j", act)


@pytest.mark.parametrize("value", [float("nan"), object(), {1: {2}}])
def test_a_result_that_is_not_json_is_a_typed_error_and_the_run_goes_on(tmp_path: Path, value: object) -> None:
    async def act(run: RunJournal) -> None:
        await claim(run, "write")
        with pytest.raises(ToolResultError, match="'write' can't be recorded"):
            await run.record("write", state="finished", value=value, effect="write")  # pyright: ignore[reportArgumentType]
        await run.record("write", state="failed", error="its result can't be recorded", effect="write")

    with_run(tmp_path / "j", act)


def test_a_result_that_holds_itself_is_a_typed_error(tmp_path: Path) -> None:
    circle: list[JSON] = []
    circle.append(circle)

    async def act(run: RunJournal) -> None:
        with pytest.raises(ToolResultError):
            await run.record("read", state="finished", value=circle, effect="read")

    with_run(tmp_path / "j", act)


def test_a_run_that_ended_is_opened_to_be_read(tmp_path: Path) -> None:
    async def first(run: RunJournal) -> None:
        await run.finish("done", output={"answer": 42}, messages=[{"role": "user", "content": "hi"}])

    async def second(run: RunJournal) -> None:
        assert run.details.summary.status == "done"
        assert run.details.output == {"answer": 42}
        assert run.details.messages == ({"role": "user", "content": "hi"},)

    with_run(tmp_path / "j", first, inputs={"q": 1})
    with_run(tmp_path / "j", second, inputs={"q": 1})


# Large results


@pytest.mark.sqlite_only
def test_a_large_result_goes_to_the_blob_folder_once(tmp_path: Path) -> None:
    large = "x" * 100_000

    async def first(run: RunJournal) -> None:
        await run.record("a", state="finished", value=large, effect="read")
        await run.record("b", state="finished", value=large, effect="read")
        await claim(run, "c")
        await run.record("c", state="finished", value=[large], effect="write")

    async def second(run: RunJournal) -> None:
        assert [run.nodes[node].value for node in "abc"] == [large, large, [large]]

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)
    blobs = [path for path in (tmp_path / "j-blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 2
    assert (tmp_path / "j").stat().st_size < 200_000


@pytest.mark.sqlite_only
def test_a_read_whose_blob_is_spoilt_runs_again_and_a_write_says_so(tmp_path: Path) -> None:
    async def first(run: RunJournal) -> None:
        await run.record("read", state="finished", value="x" * 100_000, effect="read")

    async def second(run: RunJournal) -> None:
        assert run.lookup("read") is None
        await claim(run, "write")
        await run.record("write", state="finished", value="y" * 100_000, effect="write")

    async def third(run: RunJournal) -> None:
        raise AssertionError("it can't be opened")

    def spoil() -> None:
        for path in (tmp_path / "j-blobs").rglob("*"):
            if path.is_file():
                path.write_bytes(b'"z"')

    with_run(tmp_path / "j", first)
    spoil()
    with_run(tmp_path / "j", second)
    spoil()
    with pytest.raises(StoreError, match="missing from the blob folder"):
        with_run(tmp_path / "j", third)


@pytest.mark.sqlite_only
def test_deleting_a_run_removes_what_only_it_used(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as journal:
            for run_id in ("one", "two"):
                run = await journal.open_run(run_id, name="n")
                await run.record("shared", state="finished", value="x" * 100_000, effect="read")
                await run.record("own", state="finished", value=run_id * 100_000, effect="read")
                await run.finish("done")
            await journal.open_run("three", name="n")
            with pytest.raises(RunBusy):
                journal.delete("three")
            for path in (tmp_path / "j-blobs").rglob("*"):
                os.utime(path, (clock.now - 7200, clock.now - 7200))
            assert journal.delete("one")
            assert not journal.delete("one")
            assert len([path for path in (tmp_path / "j-blobs").rglob("*") if path.is_file()]) == 2
            again = journal.show("two")
            assert again is not None
            assert again.nodes["shared"].value == "x" * 100_000

    asyncio.run(main())


# Claims


def test_a_claimed_write_that_was_not_recorded_is_in_doubt(tmp_path: Path) -> None:
    async def first(run: RunJournal) -> None:
        await claim(run, "write")

    async def second(run: RunJournal) -> None:
        found = run.lookup("write")
        assert found is not None
        assert (found.state, found.arguments, found.is_ended) == ("in_doubt", {"order": "ORD-1"}, False)
        with pytest.raises(InDoubt, match="'write' may have happened"):
            await claim(run, "write")

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)


@pytest.mark.parametrize("effect", ["idempotent", "read"])
def test_other_claims_are_made_again_with_the_next_attempt(tmp_path: Path, effect: str) -> None:
    async def first(run: RunJournal) -> None:
        assert await claim(run, "node", effect) == 1

    async def second(run: RunJournal) -> None:
        assert await claim(run, "node", effect) == (2 if effect == "idempotent" else 1)

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)


def test_a_claim_whose_caller_was_cancelled_is_taken_back(tmp_path: Path) -> None:
    async def first(run: RunJournal) -> None:
        task = asyncio.create_task(claim(run, "write"))
        await asyncio.sleep(0)  # it has been handed over, nothing can stop it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert run.lookup("write") is None

    async def second(run: RunJournal) -> None:
        assert run.lookup("write") is None
        assert await claim(run, "write") == 1

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)


@pytest.mark.parametrize(
    ("resolution", "state", "value", "error"),
    [
        (Done({"ok": 1}), "finished", {"ok": 1}, None),
        (Fail("no"), "failed", None, "no"),
        (Retry(), "retry", None, None),
    ],
)
@pytest.mark.parametrize("is_elsewhere", [True, False])
def test_a_write_in_doubt_is_resolved_here_or_elsewhere(
    tmp_path: Path, resolution: Resolution, state: str, value: JSON, error: str | None, is_elsewhere: bool
) -> None:
    async def first(run: RunJournal) -> None:
        await claim(run, "write")

    async def resolve(run: RunJournal) -> None:
        await run.resolve("write", resolution, by="ada")

    async def second(run: RunJournal) -> None:
        found = run.lookup("write")
        assert found is not None
        assert (found.state, found.value, found.error, found.by) == (state, value, error, "ada")
        if state == "retry":
            assert await claim(run, "write") == 2

    with_run(tmp_path / "j", first)
    if is_elsewhere:
        with opened_journal(tmp_path / "j") as journal:
            shown = journal.show("r")
            assert shown is not None
            assert shown.nodes["write"].state == "in_doubt"
            journal.resolve("r", "write", resolution, by="ada")
            with pytest.raises(RunError, match="isn't in doubt"):
                journal.resolve("r", "nothing", resolution, by="ada")
    else:
        with_run(tmp_path / "j", resolve)
    with_run(tmp_path / "j", second)


def test_nobody_resolves_while_somebody_drives(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            await claim(run, "write")
            with pytest.raises(RunBusy):
                journal.resolve("r", "write", Retry(), by="ada")

    asyncio.run(main())


# Changed code


def test_a_run_that_began_with_other_code_is_refused_unless_allowed(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            await (await journal.open_run("r", name="n", code="c1")).close()
            with pytest.raises(CodeChanged):
                await journal.open_run("r", name="n", code="c2")
            await (await journal.open_run("r", name="n", code="c2", allow_changed=True)).close()
            await (await journal.open_run("r", name="n", code="c2")).finish("done")
            assert (await journal.open_run("r", name="n", code="c3")).details.summary.status == "done"

    asyncio.run(main())


def test_an_unfinished_node_with_other_code_is_refused_and_a_finished_one_is_kept(tmp_path: Path) -> None:
    async def first(run: RunJournal) -> None:
        await claim(run, "done", "idempotent")
        await run.record("done", state="finished", value=1, effect="idempotent")
        await claim(run, "half", "idempotent")

    async def second(run: RunJournal) -> None:
        found = run.lookup("done")
        assert found is not None
        assert found.is_ended
        with pytest.raises(CodeChanged, match="'half' began with other code of 'refund'"):
            await claim(run, "half", "idempotent", code="t2")
        assert await claim(run, "half", "idempotent") == 2

    async def third(run: RunJournal) -> None:
        assert await claim(run, "half", "idempotent", code="t2") == 3

    with_run(tmp_path / "j", first)
    with_run(tmp_path / "j", second)
    with_run(tmp_path / "j", third, allow_changed=True)


# One driver


def test_a_run_is_driven_once_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as one, opened_journal(tmp_path / "j") as other:
            run = await one.open_run("r", name="n")
            for journal in (one, other):
                with pytest.raises(RunBusy, match="driven by another process") as busy:
                    await journal.open_run("r", name="n")
                who = f"driven by another process: process {os.getpid()} on machine {socket.gethostname()!r}"
                assert who in str(busy.value)
            assert other.runs()[0].is_held
            await run.close()
            assert not other.runs()[0].is_held
            await (await other.open_run("r", name="n")).close()

    asyncio.run(main())


@pytest.mark.parametrize("cancellations", [1, 2])
def test_a_run_whose_opening_was_cancelled_is_nobodys(tmp_path: Path, cancellations: int) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            opening = asyncio.create_task(journal.open_run("r", name="n"))
            for _ in range(cancellations):
                await asyncio.sleep(0)
                opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await (await journal.open_run("r", name="n")).close()

    asyncio.run(main())


@pytest.mark.sqlite_only
def test_a_run_whose_end_could_not_be_written_goes_on_in_the_same_process(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            with closing(sqlite3.connect(tmp_path / "j")) as trouble:
                full = "CREATE TRIGGER full BEFORE UPDATE OF holder ON run BEGIN SELECT RAISE(ABORT, 'no space'); END"
                trouble.execute(full)
                with pytest.raises(StoreError, match="no space"):
                    await run.finish("done")
                with pytest.raises(StoreError, match="no space"):
                    await run.close()
                trouble.execute("DROP TRIGGER full")
            again = await journal.open_run("r", name="n")
            await again.finish("done")
            assert [run.status for run in journal.runs()] == ["done"]

    asyncio.run(main())


def test_a_driver_that_lost_its_lease_can_change_nothing(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with (
            opened_journal(tmp_path / "j", clock=clock, lease_s=10) as one,
            opened_journal(tmp_path / "j", clock=clock, lease_s=10) as other,
        ):
            old = await one.open_run("r", name="n")
            await claim(old, "started")
            pretend_another_machine(tmp_path / "j")
            clock.advance(11)
            new = await other.open_run("r", name="n")
            with pytest.raises(RunBusy, match="took over"):
                await old.record("started", state="finished", value="late", effect="write")
            with pytest.raises(RunBusy):
                await claim(old, "another")
            with pytest.raises(RunBusy):
                await old.record_turn(1, {})
            with pytest.raises(RunBusy):
                await old.finish("done")
            await old.record("read", state="finished", value="late", effect="read")
            await old.close()
            await new.finish("done")
            found = other.show("r")
            assert found is not None
            assert {node: record.state for node, record in found.nodes.items()} == {"started": "in_doubt"}
            assert found.summary.status == "done"

    asyncio.run(main())


@pytest.mark.sqlite_only
def test_a_driver_that_certainly_lives_keeps_its_run_however_long_it_is_silent(tmp_path: Path) -> None:
    """It may have been stopped, and would go on in the middle of a write when it wakes."""
    clock = ManualClock()

    async def main() -> None:
        with (
            opened_journal(tmp_path / "j", clock=clock, lease_s=10) as one,
            opened_journal(tmp_path / "j", clock=clock, lease_s=10) as other,
        ):
            run = await one.open_run("r", name="n")
            await claim(run, "w")
            clock.advance(1e6)
            with pytest.raises(RunBusy):
                await other.open_run("r", name="n")
            with pytest.raises(RunBusy):
                other.resolve("r", "w", Retry(), by="ada")
            with pytest.raises(RunBusy):
                other.delete("r")
            assert other.prune(0, unfinished=True) == 0
            await run.record("w", state="finished", value=1, effect="write")

    asyncio.run(main())


OTHER = "elsewhere|boot-9|pid:[1]|7|99|ab"
"""A process that can't be asked from here."""


@pytest.mark.parametrize("jump_s", [3600, -3600])
@pytest.mark.sqlite_only
def test_a_wall_clock_that_jumps_doesnt_end_a_drivers_lease(jump_s: float) -> None:
    clock = ManualClock()
    lease = RunLease(OTHER, "boot-1", clock.elapsed + 10, clock.now + 10)
    clock.jump(jump_s)
    assert lease.is_held(clock)
    clock.advance(10)
    assert not lease.is_held(clock)


@pytest.mark.sqlite_only
def test_a_lease_of_another_machine_ends_by_the_wall_clock() -> None:
    clock = ManualClock()
    lease = RunLease(OTHER, "boot-9", 5.0, clock.now + 10)
    assert lease.is_held(clock)
    clock.advance(10)
    assert not lease.is_held(clock)


@pytest.mark.sqlite_only
def test_the_lease_of_a_dead_process_is_over_at_once() -> None:
    clock = ManualClock()
    holder = this_process()
    text = holder.to_text().replace(f"|{holder.pid}|", f"|{2**22 + 1}|")
    assert not RunLease(text, "boot-1", clock.elapsed + 10, clock.now + 10).is_held(clock)


@given(
    host=st.sampled_from([this_process().host, "other"]),
    boot=st.sampled_from(["", "3f2a", "another"]),
    namespace=st.sampled_from([this_process().namespace, "", "pid:[2]"]),
    pid=st.integers(1, 2**22),
)
@pytest.mark.sqlite_only
def test_a_process_of_another_boot_is_never_known_to_be_gone_or_alive(
    host: str, boot: str, namespace: str, pid: int
) -> None:
    """For every name, namespace and number: two machines may share all of these, but no boot."""
    other = Holder(host, boot, namespace, pid, "4711", "00")
    assert not other.is_gone
    assert not other.is_alive


def test_a_run_is_known_by_its_user_and_its_session_and_its_id(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            places = [("ada", "s"), ("bob", "s"), (None, "s"), ("ada", "t"), ("", "s"), ("ada", None)]
            for user, session in places[:5]:
                run = await journal.open_run("r", name="n", user=user, session=session)
                assert run.is_new
                await run.record("n", state="finished", value=[user, session], effect="read")
                await run.finish("done", messages=[{"role": "user", "content": f"I am {user} in {session}"}])
            for user, session in places[:5]:
                shown = journal.show("r", user=user, session=session)
                assert shown is not None
                assert shown.nodes["n"].value == [user, session]
                assert [run.user for run in journal.runs(user=user)] == [user] * (2 if user == "ada" else 1)
            said = journal.conversation("s", user="ada")
            assert said == [{"role": "user", "content": "I am ada in s"}]
            with pytest.raises(RunError, match="there are 5 runs 'r'"):
                journal.show("r")
            with pytest.raises(RunError, match="there are 2 runs 'r'"):
                await journal.open_run("r", name="n", user="ada")
            assert not (await journal.open_run("r", name="n", user="bob")).is_new, "its session is known by then"
            assert journal.delete("r", user="bob", session="s")
            assert journal.show("r", user="bob") is None
            with pytest.raises(RunError, match="there is no run 'r'"):
                await journal.open_run("r", name="n", user="bob", must_exist=True)

    asyncio.run(main())


def test_a_run_goes_on_with_the_inputs_it_began_with(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            await (await journal.open_run("r", name="n", inputs={"q": 1})).close()
            with pytest.raises(RunError, match="other inputs"):
                await journal.open_run("r", name="n", inputs={"q": 2})
            run = await journal.open_run("r", name="n")
            assert run.details.inputs == {"q": 1}

    asyncio.run(main())


# Conversations, approvals, events


def test_a_session_is_the_messages_of_its_runs_in_order(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as journal:
            for number, session in enumerate(["s", "t", "s"]):
                clock.advance(86_400)
                run = await journal.open_run(str(number), name="n", session=session)
                await run.finish("done", messages=[{"role": "user", "n": number}, {"role": "assistant", "n": number}])
            await journal.open_run("broken", name="n", session="s")
            found = journal.conversation("s")
            assert [(message["role"], message["n"]) for message in found if isinstance(message, dict)] == [
                ("user", 0),
                ("assistant", 0),
                ("user", 2),
                ("assistant", 2),
            ]

    asyncio.run(main())


def test_what_was_said_after_a_decision_is_part_of_the_session_although_the_run_was_killed(tmp_path: Path) -> None:
    def turn(text: str) -> JSON:
        return {"message": AssistantMessage(text).to_json(), "nodes": []}

    async def main() -> None:
        question = UserMessage("Pay.").to_json()
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n", session="s", inputs={"message": question})
            await run.record_turn(1, turn("May I?"))
            await run.finish("waiting", messages=[question, AssistantMessage("May I?").to_json()])
            run = await journal.open_run("r", name="n", session="s")
            await run.record_turn(2, turn("It is paid."))
            await run.close()
            said = [message.get("text") for message in journal.conversation("s") if isinstance(message, dict)]
            assert said == [None, "May I?", "It is paid."]

    asyncio.run(main())


def test_an_approval_is_decided_in_another_process_with_who_and_when(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock) as one, opened_journal(tmp_path / "j", clock=clock) as other:
            run = await one.open_run("r", name="n")
            assert await run.ask("refund", name="refund_order", arguments={"order": "ORD-1"}) is None
            clock.advance(60)
            assert [approval.name for approval in (await run.refresh()).values()] == ["refund_order"]
            other.decide("r", "refund", approved=True, by="ada", reason="ok", arguments={"order": "ORD-2"})
            with pytest.raises(RunError, match="decided already"):
                other.decide("r", "refund", approved=False, by="bob")
            with pytest.raises(RunError):
                other.decide("r", "nothing", approved=False, by="bob")
            decision = (await run.refresh())["refund"].decision
            assert decision is not None
            assert (decision.approved, decision.by, decision.at, decision.reason, decision.arguments) == (
                True,
                "ada",
                clock.now,
                "ok",
                {"order": "ORD-2"},
            )

    asyncio.run(main())


def test_a_decision_holds_for_the_arguments_that_were_shown(tmp_path: Path) -> None:
    async def act(run: RunJournal) -> None:
        await run.ask("refund", name="refund_order", arguments={"order": "ORD-1"})
        mine = await run.decide("refund", approved=True, by="ada")
        assert await run.decide("refund", approved=False, by="bob") == mine, "the first one stands"
        assert await run.ask("refund", name="refund_order", arguments={"order": "ORD-1"}) == mine
        assert await run.ask("refund", name="refund_order", arguments={"order": "ORD-2"}) is None

    with_run(tmp_path / "j", act)


def test_events_are_kept_in_order_with_text_joined(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            for letter in "hello":
                log.emit(TextDelta, letter, 1)
            log.emit(CallFinished, "a", 7)
            await run.finish("done")
            events = journal.events("r")
            texts = [event["text"] for event in events if isinstance(event, dict) and event["type"] == "text.delta"]
            assert "".join(str(text) for text in texts) == "hello"
            last = events[-1]
            assert isinstance(last, dict)
            assert (last["seq"], last["type"], last["value"]) == (5, "call.finished", 7)
            assert journal.events("r", after=4) == [last]

    asyncio.run(main())


def test_numbers_of_events_go_on_and_are_never_used_twice(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        with opened_journal(tmp_path / "j", clock=clock, lease_s=10) as one:
            run = await one.open_run("r", name="n")
            assert run.first_seq == 0
            log = EventLog("r", lambda: 0.0)
            log.listen(run.append_event)
            log.emit(CallFinished, "a", 7)
            await run.close()
            run = await one.open_run("r", name="n")
            assert run.first_seq == 1
            clock.advance(11)
        with opened_journal(tmp_path / "j", clock=clock, lease_s=10) as other:
            assert (await other.open_run("r", name="n")).first_seq > 1_000, "somebody may have seen some that are lost"

    asyncio.run(main())


# Durability, order, trouble


def test_a_write_costs_two_durable_commits_and_reads_none(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            await run.record_turn(1, {})
            for number in range(10):
                await run.record(f"read-{number}", state="finished", value=number, effect="read")
            await run.finish("waiting")
            assert journal.commits.durable == 0
            run = await journal.open_run("r", name="n")
            for number in range(5):
                attempt = await claim(run, f"write-{number}")
                await run.record(f"write-{number}", state="finished", value=1, effect="write", attempt=attempt)
            await run.finish("done")
            assert journal.commits.durable == 10

    asyncio.run(main())


def test_writes_at_the_same_time_share_their_commits(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            run = await journal.open_run("r", name="n")
            await asyncio.gather(*(claim(run, f"write-{number}") for number in range(100)))
            assert journal.commits.durable <= 20
            assert len(run.nodes) == 100

    asyncio.run(main())


FULL_DISK = """
import asyncio, resource, signal, sys
from flowkit.errors import StoreError
from flowkit.journal import Journal

async def main(path):
    journal = Journal(path)
    run = await journal.open_run("r", name="n")
    await run.claim("before", tool="t", code="c", effect="write", arguments={})
    await run.record("before", state="finished", value=1, effect="write")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = 150_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    refused = 0
    for number in range(100):
        try:
            await run.claim(f"w{number}", tool="t", code="c", effect="write", arguments="x" * 5000)
        except StoreError as error:
            assert "can't be written" in str(error), error
            assert run.lookup(f"w{number}") is None
            refused += 1
    assert refused, "the disk was never full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await run.claim("after", tool="t", code="c", effect="write", arguments={}) == 1
    await run.finish("done")
    journal.close()
    found = Journal(path).show("r").nodes
    assert found["before"].value == 1 and "after" in found and len(found) == 102 - refused
    print("refused")

asyncio.run(main(sys.argv[1]))
"""


@posix_only
@pytest.mark.sqlite_only
def test_a_full_disk_refuses_the_claim_and_loses_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "j")], capture_output=True, text=True, check=False
    )
    assert run.stdout == "refused\n", run.stderr


WRITES = """
import asyncio, sys
from flowkit.journal import Journal

async def main(path):
    journal = Journal(path)
    run = await journal.open_run("r", name="n")
    for number in range(61):
        await run.claim(f"w{number}", tool="t", code="c", effect="write", arguments={})
        await run.record(f"w{number}", state="finished", value="x" * 20_000, effect="write")
        print(f"w{number}", flush=True)
        if number % 3 == 0:
            sys.stdin.readline()
    await run.finish("done")
    journal.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.timing
@posix_only
@pytest.mark.sqlite_only
def test_a_copy_taken_at_any_moment_holds_every_effect_recorded_before(tmp_path: Path) -> None:
    """What a kill leaves: the file and its log as they lie there, at a moment that nobody chose.

    The process stands still while the two are copied. One that went on would move pages between them meanwhile, and
    the copy would be of no moment at all.
    """
    known: set[str] = set()
    command = [sys.executable, "-c", WRITES, str(tmp_path / "j")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        for number, line in enumerate(run.stdout):
            known.add(line.strip())
            if number % 3:
                continue
            run.stdin.write("go on\n")
            run.stdin.flush()
            if number == 60:
                continue
            run.send_signal(signal.SIGSTOP)  # it has gone on since, nobody knows how far
            _, status = os.waitpid(run.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            path = tmp_path / f"copy-{number}"
            for end in ("", "-wal"):
                if (tmp_path / f"j{end}").exists():
                    shutil.copy(tmp_path / f"j{end}", f"{path}{end}")
            run.send_signal(signal.SIGCONT)
            with opened_journal(path) as journal:
                details = journal.show("r")
                assert details is not None
                assert known <= {node for node, record in details.nodes.items() if record.state == "finished"}
    assert run.returncode == 0
    assert len(known) == 61


@pytest.mark.sqlite_only
def test_a_file_that_is_no_journal_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"my diary" * 1000)
    with pytest.raises(StoreError, match="can't be opened"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == b"my diary" * 1000


@pytest.mark.sqlite_only
def test_a_journal_of_a_newer_flowkit_is_refused(tmp_path: Path) -> None:
    with opened_journal(tmp_path / "j"):
        pass
    connection = sqlite3.connect(tmp_path / "j")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer flowkit"):
        Journal(tmp_path / "j")


@posix_only
@pytest.mark.sqlite_only
def test_the_files_are_readable_for_their_owner_only(tmp_path: Path) -> None:
    async def act(run: RunJournal) -> None:
        await run.record("a", state="finished", value="x" * 100_000, effect="read")

    with_run(tmp_path / "deep" / "j", act)
    for path in (tmp_path / "deep").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.sqlite_only
def test_the_environment_names_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWKIT_JOURNAL", str(tmp_path / "x"))
    assert default_journal_path() == tmp_path / "x"
    monkeypatch.delenv("FLOWKIT_JOURNAL")
    assert default_journal_path().name == "journal.sqlite3"


def test_a_node_that_is_not_in_doubt_is_not_resolved(tmp_path: Path) -> None:
    async def ended(run: RunJournal) -> None:
        await claim(run, "write")
        await run.record("write", state="finished", value=1, effect="write")
        with pytest.raises(RunError, match="'write' isn't in doubt"):
            await run.resolve("write", Retry())
        found = run.lookup("write")
        assert found is not None
        assert (found.state, found.value) == ("finished", 1)

    with_run(tmp_path / "j", ended)


# Runs that nobody drives


def test_queued_run_is_stopped_until_somebody_drives_it(tmp_path: Path) -> None:
    async def queue(run: RunJournal) -> None:
        await run.finish("queued")

    async def drive(run: RunJournal) -> None:
        assert not run.is_new
        assert run.details.inputs == {"n": 1}
        assert run.first_seq == 0
        with opened_journal(tmp_path / "j") as other:
            assert [found.status for found in other.runs()] == ["running"]
            assert other.stopped() == []
        await run.finish("done")

    with_run(tmp_path / "j", queue, inputs={"n": 1})
    with opened_journal(tmp_path / "j") as journal:
        assert [(found.run_id, found.status, found.is_held) for found in journal.stopped()] == [("r", "queued", False)]
    with_run(tmp_path / "j", drive)
    with opened_journal(tmp_path / "j") as journal:
        assert journal.stopped() == []


def test_request_to_cancel_outlives_a_take_over_and_ends_with_the_run(tmp_path: Path) -> None:
    async def drive(run: RunJournal) -> None:
        with opened_journal(tmp_path / "j") as other:
            assert other.request_cancel("r")
            assert [found.status for found in other.runs(status="cancelling")] == ["cancelling"]

    async def take_over(run: RunJournal) -> None:
        assert run.details.summary.status == "cancelling"
        await run.finish("cancelled")

    with_run(tmp_path / "j", drive)
    with opened_journal(tmp_path / "j") as journal:
        assert [found.status for found in journal.stopped()] == ["cancelling"]
    with_run(tmp_path / "j", take_over)
    with opened_journal(tmp_path / "j") as journal:
        assert not journal.request_cancel("r")
        assert journal.stopped() == []


def test_only_a_run_that_waits_is_queued_again(tmp_path: Path) -> None:
    async def wait(run: RunJournal) -> None:
        await run.finish("waiting")

    with_run(tmp_path / "j", wait)
    with opened_journal(tmp_path / "j") as journal:
        assert journal.stopped() == []
        assert journal.requeue("r")
        assert not journal.requeue("r")
        assert not journal.requeue("another")
        assert [found.status for found in journal.stopped()] == ["queued"]


def test_oldest_stopped_runs_come_first_and_held_ones_take_no_room(tmp_path: Path) -> None:
    async def main() -> None:
        with opened_journal(tmp_path / "j") as journal:
            held = [await journal.open_run(f"held-{number}", name="n") for number in range(3)]
            for number in range(3):
                await (await journal.open_run(f"r{number}", name="n")).finish("queued")
            assert [found.run_id for found in journal.stopped(limit=2)] == ["r0", "r1"]
            for run in held:
                await run.close()

    asyncio.run(main())

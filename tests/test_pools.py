"""What can go to another process, and how it looks there and when it comes back; no process is started here."""

import functools
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import CONTEXT, Context, DefinitionError, InDoubt, Tool, ToolArgumentsError, ToolError, tool
from flowkit.errors import ConfigurationError
from flowkit.executor.slots import Slots
from flowkit.pools.calls import CallRefused, PoolCall, PoolOutcome, Unshown, hash_code, make_call, split
from flowkit.pools.cluster import check_address, is_trusted
from flowkit.pools.dask_worker import find_difference, find_versions, run_call
from flowkit.pools.pace import CALLS_AT_LEAST, Pace
from flowkit.pools.performing import find_tool, perform
from flowkit.pools.windows import find_size, find_windows
from flowkit.tools.options import PoolName
from flowkit.tools.places import FunctionAddress
from tests import pooled_tools
from tests.pooled_tools import Odd, Point, add, count_letters, move, refuse, shift, show


def at_top(number: int) -> int:
    """Return a number."""
    return number


class Holder:
    """A class with functions in it."""

    @staticmethod
    def fixed(number: int) -> int:
        """Return a number."""
        return number

    def bound(self, number: int) -> int:
        """Return a number."""
        return number

    @classmethod
    def of_class(cls, number: int) -> int:
        """Return a number."""
        return number


def with_context(number: int, ctx: Context[Any] = CONTEXT) -> int:
    """Return a number."""
    return number


nameless: Callable[[int], int] = lambda number: number  # noqa: E731  # what is refused


def make_local() -> Callable[[int], int]:
    def local(number: int) -> int:
        return number

    return local


@pytest.mark.parametrize("pool", ["process", "dask"])
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (nameless, "a lambda has no name to find it by"),
        (make_local(), "local is made anew inside another function"),
        (functools.partial(at_top, 3), "a partial has no name to find it by"),
        (Holder.bound, "a method stays with its object"),
        (Holder.__dict__["of_class"], "a method stays with its object"),
        (with_context, "the run stays here"),
    ],
)
def test_what_another_process_cannot_find_is_refused_at_decoration(
    function: Callable[..., Any], said: str, pool: PoolName
) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:
        tool(name="one", effect="read", pool=pool)(function)

    assert f"pool={pool!r} runs it in another process" in str(caught.value)


def test_a_tool_of_a_schema_is_refused() -> None:
    with pytest.raises(DefinitionError, match="made of a schema"):
        Tool.from_schema("one", "One.", {"type": "object"}, at_top, effect="read", pool="process")


@pytest.mark.parametrize("effect", [None, "write"])
def test_a_write_is_refused_on_dask_alone(effect: Any) -> None:
    with pytest.raises(DefinitionError, match="can't be claimed from there") as caught:
        tool(pool="dask", effect=effect)(at_top)

    assert ("one without an effect counts as a write" in str(caught.value)) == (effect is None)
    assert tool(pool="process", effect=effect)(at_top).effect == "write"
    assert tool(pool="dask", effect="idempotent")(at_top).pool == "dask"


def test_an_unknown_pool_is_refused() -> None:
    with pytest.raises(DefinitionError, match="pool is 'threads', expected one of 'process', 'dask'"):
        tool(pool="threads")(at_top)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_static_method_can_be_found() -> None:
    made = tool(effect="read", pool="process")(Holder.fixed)

    assert made.place == FunctionAddress(__name__, "Holder.fixed", str(Path(__file__).resolve()))


SCRIPT = """
from flowkit import tool
@tool(effect="read", pool={pool!r})
def double(number: int) -> int:
    return 2 * number
{end}
"""
GUARD = 'if __name__ == "__main__":\n    print(double.place.module)'


@pytest.mark.parametrize(
    ("pool", "end", "said"),
    [
        ("process", GUARD, "__main__"),
        ("process", "print(double)", "is a script that would start all over there"),
        ("dask", GUARD, "move it into a module"),
    ],
)
def test_a_script_needs_its_guard(tmp_path: Path, pool: str, end: str, said: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(pool=pool, end=end))

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)

    assert said in (done.stdout if end == GUARD and pool == "process" else done.stderr)


@pytest.mark.slow
def test_an_interactive_session_is_told_to_use_a_module() -> None:
    program = SCRIPT.format(pool="process", end="")

    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True)

    assert "what is typed in an interactive session can't be imported there" in done.stderr


def send(made: Tool[..., Any], **given: object) -> PoolOutcome:
    """The outcome of a call, done as another process does it."""
    call = make_call(made, made.validate(given))
    return PoolOutcome.from_bytes(perform(call.to_bytes(), lambda: True))


def test_arguments_and_results_have_the_types_that_are_declared() -> None:
    assert send(move, point={"x": 1, "y": 2}, day="2024-02-03").read(move) == {"x": 2, "y": 5}
    # As Python values, too: they travel as JSON.
    assert send(move, point=Point(1, 2), day=date(2024, 2, 3), by=5).read(move) == {"x": 6, "y": 5}


def test_what_a_need_has_given_goes_along() -> None:
    arguments = shift.validate({"dx": 4}, {"moved": {"x": 1, "y": 2}})

    call = make_call(shift, arguments)

    assert call.needed == ("moved",)
    assert PoolOutcome.from_bytes(perform(call.to_bytes(), lambda: True)).read(shift) == {"x": 5, "y": 2}


def test_a_secret_arrives_as_it_is() -> None:
    assert send(count_letters, token="hush-hush").read(count_letters) == 9


@given(text=st.text(), number=st.integers(), share=st.floats(allow_nan=False, allow_infinity=False))
def test_for_every_value_the_function_gets_what_it_would_get_in_place(text: str, number: int, share: float) -> None:
    call = make_call(echo, echo.validate({"text": text, "number": number, "share": share, "many": {text: [number]}}))

    said = PoolOutcome.from_bytes(perform(PoolCall.from_bytes(call.to_bytes()).to_bytes(), lambda: True)).read(echo)

    in_place = echo.dump(echo(text, number, share, {text: [number]}))
    assert said == in_place or not text.isprintable()  # half a character is another one in UTF-8


@tool(effect="read", pool="process")
def echo(text: str, number: int, share: float, many: dict[str, list[int]]) -> list[Any]:
    """Return the arguments."""
    return [text, number, share, many]


@tool(effect="read", pool="process")
def take_any(value: Any) -> str:
    """Return the type of a value."""
    return type(value).__name__


def test_a_value_that_would_change_on_the_way_is_refused() -> None:
    with pytest.raises(ToolArgumentsError, match="'value' would arrive there as another value"):
        make_call(take_any, take_any.validate({"value": date(2024, 2, 3)}))
    with pytest.raises(ToolArgumentsError, match="JSON can't take it"):
        make_call(take_any, take_any.validate({"value": object()}))


def test_errors_come_back_by_name_and_text() -> None:
    with pytest.raises(ToolError, match=r"^sold out$"):
        send(refuse, how="tool").read(refuse)
    with pytest.raises(InDoubt, match=r"^no answer$"):
        send(refuse, how="doubt").read(refuse)
    # One that the tool's own options name is of that class, whatever its constructor takes.
    with pytest.raises(Odd, match=r"^3: odd$"):
        send(refuse, how="odd").read(refuse)
    with pytest.raises(Exception, match="deep inside") as caught:
        send(refuse, how="else").read(refuse)
    assert type(caught.value).__name__ == "ValueError"
    assert 'raise ValueError("deep inside")' in str(caught.value.__cause__)
    with pytest.raises(Exception, match=r"^2$"):
        send(refuse, how="exit").read(refuse)


def test_a_result_that_is_not_json_was_done_all_the_same() -> None:
    with pytest.raises(Unshown, match="can't be JSON"):
        send(show).read(show)


def test_arguments_are_checked_again_at_the_other_end() -> None:
    call = make_call(add, add.validate({"first": 1, "second": 2}))
    forged = PoolCall(call.place, call.code, b'{"first":"one"}').to_bytes()

    with pytest.raises(ToolError, match="'first'"):
        PoolOutcome.from_bytes(perform(forged, lambda: pytest.fail("it began"))).read(add)


def test_other_code_is_refused_before_it_begins() -> None:
    call = make_call(add, add.validate({"first": 1, "second": 2}))
    other = PoolCall(call.place, "0123456789abcdef", call.body).to_bytes()

    with pytest.raises(CallRefused, match=r"the code of tests.pooled_tools.add differs"):
        PoolOutcome.from_bytes(perform(other, lambda: pytest.fail("it began"))).read(add)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (FunctionAddress("tests.pooled_tools", "nothing", None), "isn't a tool with a pool"),
        (FunctionAddress("tests.nothing_at_all", "add", None), "there is no module 'tests.nothing_at_all'"),
        (FunctionAddress("nothing_at_all", "add", "/nowhere/nothing_at_all.py"), "there is no module 'nothing_at_all'"),
    ],
)
def test_an_address_where_nothing_is_is_refused(place: FunctionAddress, said: str) -> None:
    with pytest.raises(CallRefused, match=said):
        find_tool(place, "0123456789abcdef")


def test_a_module_that_is_in_no_path_is_found_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "somewhere_else.py"
    file.write_text(SCRIPT.format(pool="process", end=""))
    # The hash is the source's, and that is the same under any name.
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("somewhere_else", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["somewhere_else"] = module
    try:
        spec.loader.exec_module(module)
        place, code = module.double.place, hash_code(module.double)
    finally:
        del sys.modules["somewhere_else"]
    try:
        assert find_tool(place, code)(4) == 8
    finally:
        del sys.modules["somewhere_else"]


def test_a_call_that_may_not_begin_does_not() -> None:
    call = make_call(add, add.validate({"first": 1, "second": 2}))

    assert PoolOutcome.from_bytes(perform(call.to_bytes(), lambda: False)).kind == "late"


def test_a_tool_under_another_name_is_the_same_there() -> None:
    assert send(add.renamed("sum_up"), first=1, second=2).read(add) == 3


def test_a_worker_of_another_version_refuses() -> None:
    call = make_call(pooled_tools.add_far, pooled_tools.add_far.validate({"first": 1, "second": 2}))
    ours = find_versions()
    assert find_difference(ours, ours) is None
    head = ";".join(f"{name}={said}" for name, said in {**ours, "dask": "1.0"}.items()).encode()

    outcome = PoolOutcome.from_bytes(run_call(head + b"\n" + call.to_bytes()))

    assert outcome.kind == "refused"
    assert "dask" in outcome.error


@pytest.mark.parametrize(
    ("address", "is_fine"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("127.0.0.1:8786", True),
        ("localhost:8786", True),
        ("tcp://[::1]:8786", True),
        ("tls://10.0.0.3:8786", True),
        ("tcp://10.0.0.3:8786", False),
        ("tcp://scheduler:8786", False),
        ("tcp://127.0.0.1.example.org:8786", False),
        ("10.0.0.3:8786", False),
        ("ws://10.0.0.3:8786", False),
    ],
)
def test_a_scheduler_elsewhere_needs_tls(address: str, is_fine: bool) -> None:
    assert is_trusted(address) == is_fine
    if not is_fine:
        with pytest.raises(CallRefused, match="use tls://"):
            check_address(address)


def test_the_size_of_the_pool_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_POOL_SIZE", "3")
    assert find_size() == find_windows()["pool:process"] == 3
    monkeypatch.setenv("FLOWKIT_POOL_SIZE", "many")
    with pytest.raises(ConfigurationError, match="FLOWKIT_POOL_SIZE is 'many'"):
        find_size()
    monkeypatch.delenv("FLOWKIT_POOL_SIZE")
    assert find_size() >= 1


def test_a_slot_of_a_pool_takes_none_of_the_general_ones() -> None:
    slots = Slots[str](1, {"pool:process": 2})

    assert slots.take("here")
    assert slots.take("far 1", "pool:process")
    assert slots.take("far 2", "pool:process")
    assert not slots.take("far 3", "pool:process")
    assert not slots.take("here too")
    assert slots.release("pool:process") == "far 3"
    assert slots.release("pool:process") is None
    assert slots.release() == "here too"
    assert slots.take("far 4", "pool:process")


def test_the_limit_of_a_run_on_a_pool_can_be_given() -> None:
    slots = Slots[str]({"pool:process": 1}, {"pool:process": 8})

    assert slots.take("one", "pool:process")
    assert not slots.take("two", "pool:process")


def test_a_tool_too_small_for_the_way_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pace = Pace("process")
    with caplog.at_level(logging.WARNING, "flowkit.pools"):
        for _ in range(3 * CALLS_AT_LEAST):
            pace.note("small", 0.002, 0.001)
            pace.note("large", 0.2, 0.001)

    assert [record.message for record in caplog.records] == [
        "tip: 'small' takes 2 ms on average, and the way to pool='process' and back 1 ms:"
        " give each call more to do, or leave the pool out"
    ]


def test_a_message_is_read_as_it_was_written() -> None:
    assert split(b"head\nbody\nmore") == (b"head", b"body\nmore")

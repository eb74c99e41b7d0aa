"""Run a call in a worker of a Dask cluster, and describe the worker."""

import asyncio
import platform
from collections.abc import Mapping
from functools import cache

from flowkit.pools.calls import CallRefused, PoolOutcome, split
from flowkit.pools.performing import find_tool, find_version, perform
from flowkit.tools.places import FunctionAddress

Versions = Mapping[str, str]


@cache
def find_versions() -> dict[str, str]:
    """Return the versions that have to agree at both ends."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = {"dask": "dask", "distributed": "distributed", "flowkit": "flowkit-agents"}
    return {"Python": python, **{name: find_version(package) for name, package in packages.items()}}


def find_difference(ours: Versions, theirs: Versions) -> str | None:
    """Return the first difference between the versions of both ends."""
    differs = [
        f"{name} {theirs.get(name)} there, {said} here" for name, said in ours.items() if theirs.get(name) != said
    ]
    return ", ".join(differs) or None


def run_call(message: bytes, start: tuple[str, str] | None = None) -> bytes:
    """Run a call that `cluster` sent; `start` is a topic, and the message to send there when the function starts."""
    head, call = split(message)
    if head != find_head():
        # A worker that came after the others were asked.
        theirs = dict(part.split("=", 1) for part in head.decode().split(";"))
        difference = find_difference(theirs, find_versions())
        return PoolOutcome("refused", error=f"the worker's versions differ: {difference}").to_bytes()
    return perform(call, lambda: _tell(start))


@cache
def find_head() -> bytes:
    """Return the line that goes before each call: the versions of the sender."""
    return ";".join(f"{name}={said}" for name, said in find_versions().items()).encode()


def _tell(start: tuple[str, str] | None) -> bool:
    if start is not None:
        from distributed import get_worker

        get_worker().log_event(*start)
    return True


async def describe(place: tuple[str, str, str | None], code: str) -> dict[str, str]:
    """Return this worker's versions, and under "refused" why it can't run the function at this address."""
    said = dict(find_versions())
    try:
        await asyncio.to_thread(find_tool, FunctionAddress(*place), code)
    except CallRefused as refused:
        said["refused"] = str(refused)
    return said


def do_nothing(_: int) -> None:
    """Measure the way."""

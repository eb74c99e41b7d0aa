"""What runs in a worker of a Dask cluster: one call, and what the worker says of itself."""

import asyncio
import platform
from collections.abc import Mapping
from functools import cache

from flowkit.pools.calls import PoolOutcome, Refused, split
from flowkit.pools.performing import find_tool, find_version, perform
from flowkit.tools.places import Place

Versions = Mapping[str, str]


@cache
def find_versions() -> dict[str, str]:
    """Return the versions that have to agree at both ends."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = {"dask": "dask", "distributed": "distributed", "flowkit": "flowkit-agents"}
    return {"Python": python, **{name: find_version(package) for name, package in packages.items()}}


def find_difference(ours: Versions, theirs: Versions) -> str | None:
    """Return what differs between the versions of two ends."""
    differs = [
        f"{name} {theirs.get(name)} there, {said} here" for name, said in ours.items() if theirs.get(name) != said
    ]
    return ", ".join(differs) or None


def run_call(message: bytes, key: str, topic: str | None) -> bytes:
    """Do a call that `cluster` sent; with a `topic`, tell there that the function starts."""
    head, call = split(message)
    theirs = dict(part.split("=", 1) for part in head.decode().split(";"))
    difference = find_difference(theirs, find_versions())
    if difference is not None:
        # A worker that came after the others were asked.
        return PoolOutcome("refused", error=f"the worker's versions differ: {difference}").to_bytes()
    return perform(call, lambda: _tell(topic, key))


def _tell(topic: str | None, key: str) -> bool:
    if topic is not None:
        from distributed import get_worker

        get_worker().log_event(topic, key)
    return True


async def describe(place: tuple[str, str, str | None], code: str) -> dict[str, str]:
    """Return this worker's versions, and under "refused" why it can't run the function at this address."""
    said = dict(find_versions())
    try:
        await asyncio.to_thread(find_tool, Place(*place), code)
    except Refused as refused:
        said["refused"] = str(refused)
    return said


def do_nothing(_: int) -> None:
    """Measure the way."""

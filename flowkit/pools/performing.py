"""The other end of a pool: find the function by its address, validate the arguments, call it, serialise the result."""

import asyncio
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import cache, reduce
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from types import ModuleType
from typing import Any, cast

from flowkit.codec import dumps
from flowkit.errors import ConfigurationError, ToolArgumentsError, ToolResultError
from flowkit.pools.calls import AnyTool, CallRefused, PoolCall, PoolOutcome, hash_code, read_arguments
from flowkit.tools import Tool
from flowkit.tools.places import MAIN, FunctionAddress

MAIN_THERE = "__flowkit_main__"
"""What a script is called in a process of the pool: not `__main__`, so what it guards by that doesn't run."""

_loading = threading.local()
_lock = threading.RLock()


def perform(
    message: bytes,
    begin: Callable[[], bool],
    run_async: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
) -> bytes:
    """Run a call, and return its outcome; `begin` is called right before the function starts, and can refuse."""
    call = PoolCall.from_bytes(message)
    try:
        tool = find_tool(call.place, call.code)
        arguments = read_arguments(tool, call.body, call.needed)
    except CallRefused as refused:
        cause = refused.__cause__
        trace = "" if cause is None else PoolOutcome.of_error(cause, None).trace
        return PoolOutcome("refused", error=str(refused), trace=trace).to_bytes()
    except ToolArgumentsError as error:
        return PoolOutcome.of_error(error, None).to_bytes()
    if not begin():
        return PoolOutcome("late").to_bytes()
    began = perf_counter()
    try:
        result = tool.invoke(arguments, None)
        if inspect.isawaitable(result):
            result = run_async(_wait(result))
    except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001  # a tool may raise anything
        return PoolOutcome.of_error(error, tool, perf_counter() - began).to_bytes()
    try:
        body = dumps(tool.dump(result))
    except ToolResultError as error:
        return PoolOutcome("result", error=str(error), took_s=perf_counter() - began).to_bytes()
    return PoolOutcome("done", body, perf_counter() - began).to_bytes()


async def _wait(result: Any) -> Any:
    return await result


@cache
def find_tool(place: FunctionAddress, code: str) -> AnyTool:
    """Return the tool at this address; raises `CallRefused` if it doesn't exist or has other code."""
    module = _load(place)
    found = _find_function(module, place.qualname)
    candidates = [found, *vars(module).values()]
    tools = [cast(AnyTool, one) for one in candidates if isinstance(one, Tool)]
    there = [tool for tool in tools if tool.place is not None and tool.__qualname__ == place.qualname]
    if not there:
        raise CallRefused(f"{place.module}.{place.qualname} isn't a tool with a pool in the process that should run it")
    for tool in there:
        if hash_code(tool) == code:
            return tool
    raise CallRefused(f"the code of {place.module}.{place.qualname} differs in the process that should run it")


def _find_function(module: ModuleType, qualname: str) -> object:
    return reduce(lambda held, name: getattr(held, name, None), qualname.split("."), cast(Any, module))


def _load(place: FunctionAddress) -> ModuleType:
    # One after another: a Dask worker has several threads, and half of a module is in `sys.modules` already.
    with _lock:
        return _load_once(place)


def _load_once(place: FunctionAddress) -> ModuleType:
    name = MAIN_THERE if place.module == MAIN else place.module
    if name in sys.modules:
        return importlib.import_module(name)  # which waits for whoever else imports it
    _loading.is_on = True
    try:
        if name != MAIN_THERE and _can_import(name):
            return importlib.import_module(name)
        return _load_file(name, place)
    except CallRefused:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything
        said = f"{type(error).__name__}: {error}"
        raise CallRefused(f"{place.module} doesn't import in the process that should run it: {said}") from error
    finally:
        _loading.is_on = False


def _can_import(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _load_file(name: str, place: FunctionAddress) -> ModuleType:
    spec = None if place.file is None else importlib.util.spec_from_file_location(name, place.file)
    if spec is None or spec.loader is None:
        raise CallRefused(f"there is no module {place.module!r} in the process that should run it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        del sys.modules[name]
        raise CallRefused(f"there is no module {place.module!r} in the process that should run it") from error
    except BaseException:  # the user's module: half of it must not stay for the next call
        del sys.modules[name]
        raise
    return module


def refuse_while_loading() -> None:
    """Raise `ConfigurationError` while a pool's process imports a module: a script that isn't guarded opens pools."""
    if getattr(_loading, "is_on", False):
        raise ConfigurationError(
            "a module that a pool's process imports starts a run of its own: put what it starts under"
            ' `if __name__ == "__main__":`'
        )


@cache
def find_version(package: str) -> str:
    """Return the version of a package that is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

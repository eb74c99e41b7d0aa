"""The address of a function for another process: its module and its name there.

A tool with a `pool` runs in another process, which receives only the function's address. A
function without an address, or one that would arrive without something that it needs, is refused at decoration.
"""

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flowkit.errors import DefinitionError
from flowkit.tools.implementation import Callee
from flowkit.tools.needs import Need
from flowkit.tools.options import Options, strongest

MAIN = "__main__"


@dataclass(frozen=True, slots=True)
class FunctionAddress:
    """The address of a function: `file` is where its module was loaded from, for a process that can't import it by name."""

    module: str
    qualname: str
    file: str | None


def check_place(callee: Callee, options: Options, *, is_method: bool, has_signature: bool) -> FunctionAddress | None:
    """Return where another process finds the function of a tool with a pool; None for a tool without one.

    Raises `DefinitionError` for what can't be sent there.
    """
    if options.pool is None:
        return None
    problem = _find_misfit(callee, options, is_method=is_method, has_signature=has_signature)
    found = find_place(callee.function) if problem is None else problem
    if isinstance(found, FunctionAddress) and found.module == MAIN and options.pool == "dask":
        found = "it stands in the script itself, which Dask's workers can't import: move it into a module"
    if isinstance(found, str):
        raise DefinitionError.about(callee.name, f"pool={options.pool!r} runs it in another process, and {found}")
    return found


def find_place(function: Callable[..., Any]) -> FunctionAddress | str:
    """Return the address of a function, or why it has none."""
    if not inspect.isfunction(function):
        return f"a {type(function).__name__} has no name to find it by: write a function (`def`) in a module"
    module, qualname = function.__module__, function.__qualname__
    if "<lambda>" in qualname:
        return "a lambda has no name to find it by: write a function (`def`) in a module"
    if "<locals>" in qualname:
        return f"{qualname} is made anew inside another function: write it at the top of a module"
    held = function.__globals__
    file = held.get("__file__")
    path = str(Path(file).resolve()) if isinstance(file, str) else None
    if module == MAIN:
        return _find_in_script(held.get("__spec__"), qualname, path)
    return FunctionAddress(module, qualname, path)


def _find_in_script(spec: Any, qualname: str, path: str | None) -> FunctionAddress | str:
    if spec is not None and spec.name != MAIN:
        return FunctionAddress(spec.name, qualname, path)  # `python -m package.module`
    if path is None or not Path(path).is_file():
        return "what is typed in an interactive session can't be imported there: move it into a module"
    if not _is_guarded(path):
        # Every process of the pool would do once more all that the script does.
        return (
            f"{Path(path).name} is a script that would start all over there: put what it starts under"
            ' `if __name__ == "__main__":`, or move the tool into a module'
        )
    return FunctionAddress(MAIN, qualname, path)


def _is_guarded(path: str) -> bool:
    """Return whether a script says `if __name__ == "__main__":` at its top level."""
    try:
        body = ast.parse(Path(path).read_bytes()).body
    except (SyntaxError, ValueError, OSError):
        return False
    names = [ast.unparse(statement.test) for statement in body if isinstance(statement, ast.If)]
    return any("__name__" in name and MAIN in name for name in names)


def _find_misfit(callee: Callee, options: Options, *, is_method: bool, has_signature: bool) -> str | None:
    needs = cast(Sequence[Need[Any]], callee.needs)
    effect = strongest([options.claimed_effect or "write", *(need.tool.effect for need in needs)])
    if is_method:
        return "a method stays with its object: write a function that is given what it needs"
    if not has_signature:
        return "a tool that is made of a schema has no function to find there: write one with a signature"
    if callee.takes_context:
        return "the run stays here: take what it needs as arguments instead of the Context"
    if options.pool == "dask" and effect == "write":
        said = "" if options.claimed_effect == "write" else " (one without an effect counts as a write)"
        return (
            f"a write{said} can't be claimed from there, so it might happen twice: say effect='read' or"
            " 'idempotent', or use pool='process'"
        )
    return None

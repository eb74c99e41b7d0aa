"""Hamilton: functions of a module, by its asynchronous driver; a parameter's name is the node that it waits for."""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false
# The package needn't be there where this is checked.

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from hamilton import ad_hoc_utils, async_driver


def make_graph(
    edges: Sequence[Sequence[int]], durations_s: Sequence[float]
) -> Callable[[], Coroutine[Any, Any, object]]:
    """The module is written as text: its asynchronous driver takes no decorated functions, of which one would do."""
    functions = ["import asyncio"]
    for number, (before, seconds) in enumerate(zip(edges, durations_s, strict=True)):
        parameters = ", ".join(f"n{other}: int" for other in before)
        wait = f"await asyncio.sleep({seconds})" if seconds else "pass"
        functions.append(f"async def n{number}({parameters}) -> int:\n    {wait}\n    return {number}")
    module = ad_hoc_utils.module_from_source("\n".join(functions))
    driver = asyncio.run(async_driver.Builder().with_modules(module).build())
    names = [f"n{number}" for number in range(len(edges))]

    async def run() -> None:
        results = await driver.execute(names)
        assert results[names[-1]] == len(edges) - 1

    return run

"""Mistakes that a strict checker tells; each line with one ends in `# error`."""

from flowkit import Context, Needs, Tool, tool


@tool
async def get_order(order_id: str) -> float:
    return 1.0


@tool
def add(a: int, b: int = 1) -> int:
    return a + b


add("1")  # error
add(1, 2, 3)  # error
add(1, c=2)  # error


@tool(effect="writes")  # error
def misspelt() -> None: ...


@tool(pool="threads")  # error
def misspelt_pool() -> None: ...


@tool
def wrong_need(order: str = Needs(get_order)) -> None: ...  # error


@tool
async def wrong_call(ctx: Context[None]) -> None:
    await ctx.call(add, "1")  # error
    text: str = await ctx.call(get_order, "1")  # error
    print(text)


narrower: Tool[[int, int], bool] = add  # error

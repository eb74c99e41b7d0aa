"""Mistakes in recipes that a strict checker tells; each line with one ends in `# error`."""

from dataclasses import dataclass

from flowkit import ScriptedModel, ask, build, each, recipe, step, tool


@dataclass(frozen=True)
class Order:
    id: str
    count: int


@tool
async def get_order(order_id: str) -> Order:
    raise NotImplementedError


@tool
def refund(order_id: str, won: int = 0) -> str:
    raise NotImplementedError


@recipe
def wrong_steps(order_id: str) -> int:
    order = step(get_order, order_id)
    step(get_order, 3)  # error
    step(refund, order)  # error
    step(refund, order.id, won="1")  # error
    step(refund)  # error
    print(order.name)  # error
    step.options(retry=2)  # error
    each(order.count, lambda item: item)  # error
    build(Order, id=order.id)  # error
    return order.id  # error


@recipe
def good(order_id: str) -> Order:
    return step(get_order, order_id)


good.run_sync(3)  # error
text: str = good.run_sync("1").output  # error
ask("gpt", "Summarise.")  # error
number: int = ask(ScriptedModel([]), "Count {a}.", output_type=str, a=1)  # error

"""Mistakes with the executor alone and with models: a strict checker refuses each line that says so."""

from flowkit import Agent, Executor, Graph, Outcome, ToolCall, run_graph, tool


@tool(effect="read")
def double(total: int) -> int:
    return total * 2


class Mute:
    """Has no `stream`."""

    name = "mute"
    source = "mute"


async def alone(outcome: Outcome) -> None:
    text: str = outcome.load(double)  # error
    async with Executor(tools=double) as graph:  # error
        graph.add("double")  # error
    await run_graph(Graph([ToolCall("a", "double", {"total": 1})]))  # error
    print(text)


agent = Agent(Mute())  # error

"""Agents as users write them; strict checkers have nothing to say."""

from dataclasses import dataclass
from typing import Annotated, Literal, assert_type

from pydantic import Field

from flowkit import Agent, AgentResult, Limits, ScriptedModel, tool


@dataclass(frozen=True)
class Refund:
    won: int


@dataclass(frozen=True)
class Question:
    text: str


model = ScriptedModel([])
assert_type(Agent(model, instructions="Be brief.", limits=Limits(turns=2)), Agent[str])
assert_type(Agent(model, output_type=Refund), Agent[Refund])
assert_type(Agent(model, output_type=list[Refund]), Agent[list[Refund]])
assert_type(Agent(model, output_type=Refund | Question), Agent[Refund | Question])
assert_type(Agent(model, output_type=Refund | None), Agent[Refund | None])
assert_type(Agent(model, output_type=Literal["yes", "no"]), Agent[Literal["yes", "no"]])
assert_type(Agent(model, output_type=Annotated[list[int], Field(min_length=1)]), Agent[list[int]])
chooser: Agent[Refund | Question] = Agent(model, output_type={"refund": Refund, "question": Question})
assert_type(chooser.run_sync("Hello").output, Refund | Question)

clerk: Agent[Refund | Question] = Agent(model, output_type=Refund | Question)
assert_type(clerk.run_sync("Hello"), AgentResult[Refund | Question])


async def answer(agent: Agent) -> str:
    async with agent.stream("Hello", user="c-17") as run:
        async for event in run:
            print(event.seq)
        return (await run.wait()).output or ""


@tool(effect="read")
async def make_refund(won: int) -> Refund:
    """Say what goes back."""
    return Refund(won)


@tool(effect="read")
def ask_back(text: str) -> Question:
    """Ask the customer."""
    return Question(text)


assert_type(Agent(model, output_tool=make_refund), Agent[Refund])
assert_type(Agent(model, output_tool=ask_back), Agent[Question])

"""Pydantic AI: its agent with an event handler, `model_request_stream`, and a `Tool` with its validator."""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false
# The package needn't be there where this is checked.

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent, RunContext, Tool
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import RunUsage


@asynccontextmanager
async def open_agent(
    base_url: str, *tools: Callable[..., Any]
) -> AsyncIterator[Callable[[str], Coroutine[Any, Any, str]]]:
    """`run_stream` would take the text before the calls for the answer; a handler of events sees all of them."""
    async with AsyncOpenAI(base_url=base_url, api_key="any") as client:
        agent = Agent(make_model(client, "any"), tools=tools)

        async def read(_: RunContext[None], events: AsyncIterator[object]) -> None:
            async for _ in events:
                pass

        async def ask(prompt: str) -> str:
            return (await agent.run(prompt, event_stream_handler=read)).output

        yield ask


def make_model(client: AsyncOpenAI, name: str) -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


async def stream(model: OpenAIChatModel) -> AsyncIterator[object]:
    async with model_request_stream(model, [ModelRequest.user_text_prompt("go")]) as response:
        async for event in response:
            yield event
        assert response.get().parts


def build(function: Callable[..., Any]) -> Tool[None]:
    made = Tool(function)
    assert made.tool_def.parameters_json_schema
    return made


def make_call(tool: Tool[None], arguments: str) -> Callable[[], Coroutine[Any, Any, object]]:
    schema = tool.function_schema
    context = RunContext(
        deps=None, model=OpenAIChatModel("any", provider=OpenAIProvider(api_key="any")), usage=RunUsage()
    )

    async def call() -> object:
        return await schema.call(schema.validator.validate_json(arguments), context)

    return call

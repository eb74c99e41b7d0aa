"""OpenAI Agents SDK: `Runner.run_streamed`, the model's `stream_response`, and a `FunctionTool`; tracing is off."""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false
# The package needn't be there where this is checked.

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.tool_context import ToolContext
from openai import AsyncOpenAI

set_tracing_disabled(True)


@asynccontextmanager
async def open_agent(
    base_url: str, *tools: Callable[..., Any]
) -> AsyncIterator[Callable[[str], Coroutine[Any, Any, str]]]:
    async with AsyncOpenAI(base_url=base_url, api_key="any") as client:
        agent = Agent(name="bench", model=make_model(client, "any"), tools=[build(function) for function in tools])

        async def ask(prompt: str) -> str:
            result = Runner.run_streamed(agent, prompt)
            async for _ in result.stream_events():
                pass
            return result.final_output

        yield ask


def make_model(client: AsyncOpenAI, name: str) -> OpenAIChatCompletionsModel:
    return OpenAIChatCompletionsModel(name, openai_client=client)


async def stream(model: OpenAIChatCompletionsModel) -> AsyncIterator[object]:
    response = None
    async for event in model.stream_response(None, "go", ModelSettings(), [], None, [], ModelTracing.DISABLED):
        if event.type == "response.completed":
            response = event.response
        yield event
    assert response is not None
    assert response.output


def build(function: Callable[..., Any]) -> FunctionTool:
    return function_tool(function)


def make_call(tool: FunctionTool, arguments: str) -> Callable[[], Coroutine[Any, Any, object]]:
    context = ToolContext(None, tool_name=tool.name, tool_call_id="call_0", tool_arguments=arguments)
    return lambda: tool.on_invoke_tool(context, arguments)

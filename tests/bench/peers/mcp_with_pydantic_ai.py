"""Pydantic AI's agent with an `MCPToolset`, its model a function that makes the calls."""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false, reportAttributeAccessIssue=false
# The package needn't be there where this is checked.

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits


@asynccontextmanager
async def open_mcp_agent(
    command: str, arguments: Sequence[str]
) -> AsyncIterator[Callable[[int, int], Coroutine[object, object, None]]]:
    toolset = MCPToolset(StdioTransport(command, list(arguments)))
    async with toolset:

        async def run(turns: int, width: int) -> None:
            left = turns

            def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
                nonlocal left
                left -= 1
                if left < 0:
                    return ModelResponse([TextPart("done")])
                return ModelResponse([ToolCallPart("echo", {"text": str(n)}) for n in range(width)])

            limits = UsageLimits(request_limit=turns + 1)
            result = await Agent(FunctionModel(answer), toolsets=[toolset]).run("go", usage_limits=limits)
            assert result.output == "done"

        yield run

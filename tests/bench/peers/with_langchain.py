"""LangChain on LangGraph: `create_agent` streamed by messages, `ChatOpenAI.astream`, and a `StructuredTool`."""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false
# The package needn't be there where this is checked.

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI


@asynccontextmanager
async def open_agent(
    base_url: str, *tools: Callable[..., Any]
) -> AsyncIterator[Callable[[str], Coroutine[Any, Any, str]]]:
    async with AsyncOpenAI(base_url=base_url, api_key="any") as client:
        agent = create_agent(make_model(client, "any"), [build(function) for function in tools])

        async def ask(prompt: str) -> str:
            state: dict[str, Any] = {"messages": [("user", prompt)]}
            async for kind, value in agent.astream(state, stream_mode=["messages", "values"]):
                if kind == "values":
                    state = value
            return state["messages"][-1].text

        yield ask


def make_model(client: AsyncOpenAI, name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, api_key="any", async_client=client.chat.completions)


async def stream(model: ChatOpenAI) -> AsyncIterator[object]:
    chunks: list[AIMessageChunk] = []
    async for chunk in model.astream("go"):
        chunks.append(chunk)
        yield chunk
    message = chunks[0] + chunks[1:]
    assert message.content or message.tool_calls


def build(function: Callable[..., Any]) -> BaseTool:
    made = StructuredTool.from_function(coroutine=function, parse_docstring=True)
    assert convert_to_openai_tool(made)
    return made


def make_call(tool: BaseTool, arguments: str) -> Callable[[], Coroutine[Any, Any, object]]:
    return lambda: tool.ainvoke(json.loads(arguments))

"""The OpenAI Agents SDK with an `MCPServerStdio`, its model a class that makes the calls; tracing is off."""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportReturnType=false
# pyright: reportAssignmentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# The package needn't be there where this is checked.

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

set_tracing_disabled(True)


class Calling(Model):
    """Makes `width` calls in each of `turns`, then answers."""

    def __init__(self, turns: int, width: int) -> None:
        self._left, self._width, self._made = turns, width, 0

    async def get_response(self, *args: Any, **options: Any) -> ModelResponse:
        self._left -= 1
        if self._left < 0:
            text = ResponseOutputText(annotations=[], text="done", type="output_text")
            said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
            return ModelResponse([said], Usage(), None)
        calls = []
        for _ in range(self._width):
            self._made += 1
            arguments = json.dumps({"text": str(self._made)})
            calls.append(
                ResponseFunctionToolCall(
                    arguments=arguments, call_id=f"c{self._made}", name="echo", type="function_call"
                )
            )
        return ModelResponse(calls, Usage(), None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def open_mcp_agent(
    command: str, arguments: Sequence[str]
) -> AsyncIterator[Callable[[int, int], Coroutine[object, object, None]]]:
    params = {"command": command, "args": list(arguments)}
    async with MCPServerStdio(params, cache_tools_list=True, client_session_timeout_seconds=60) as server:

        async def run(turns: int, width: int) -> None:
            agent = Agent(name="bench", model=Calling(turns, width), mcp_servers=[server])
            result = await Runner.run(agent, "go", max_turns=turns + 2)
            assert result.final_output == "done"

        yield run

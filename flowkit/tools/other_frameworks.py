"""Tools made for Pydantic AI, LangChain and the OpenAI Agents SDK, as tools of flowkit.

Their objects are used unchanged, and their packages are never imported here: a program
that has such an object has its package. A setting that only the framework's own runner honours, such as a guard or an
approval, is refused when the tool is made; none is dropped silently.

Convert images, audio and files of other frameworks' tools to flowkit's.
"""

import inspect
import mimetypes
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flowkit.codec import JSON, dumps
from flowkit.context import Context
from flowkit.errors import DefinitionError, ToolError
from flowkit.media import Audio, File, Image


def read_result(value: Any) -> Any:
    """Return the result with the framework's media as flowkit's, which reach the model as such and not as text."""
    if value.__class__ in (list, tuple):
        items: list[Any] = list(value)
        read = [read_result(item) for item in items]
        # The same object where nothing changed: a result keeps its type.
        return value if all(new is old for new, old in zip(read, items, strict=True)) else read
    match str(value.__class__.__module__).partition(".")[0]:
        case "pydantic_ai":
            return _read_pydantic_ai(value)
        case "agents":
            return _read_openai_agents(value)
        case _:
            return value


def is_of(value: object, module: str, name: str) -> bool:
    """Return whether the value is of this class of the framework, whose package isn't imported for it."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _read_pydantic_ai(value: Any) -> Any:
    if is_of(value, "pydantic_ai.messages", "BinaryContent"):
        return _make(bytes(value.data), str(value.media_type))
    if is_of(value, "pydantic_ai.messages", "ImageUrl"):
        return Image(str(value.url))
    if is_of(value, "pydantic_ai.messages", "DocumentUrl"):
        return File(_find_name(str(value.url)), str(value.url))
    return value


def _read_openai_agents(value: Any) -> Any:
    if is_of(value, "agents.tool", "ToolOutputText"):
        return value.text
    if is_of(value, "agents.tool", "ToolOutputImage") and value.image_url:
        return Image(value.image_url, value.detail or "auto")
    if is_of(value, "agents.tool", "ToolOutputFileContent"):
        url = value.file_url or value.file_data
        if url and not url.startswith(("data:", "http")):
            url = f"data:{_guess(value.filename)};base64,{url}"
        if url:
            return File(value.filename or _find_name(url), url)
    return value


def _make(data: bytes, media_type: str) -> Image | Audio | File:
    if media_type.startswith("image/"):
        return Image.of(data, media_type)
    return Audio.of(data, media_type) if media_type.startswith("audio/") else File.of(data, "file", media_type)


def _find_name(url: str) -> str:
    """Find a file's name in its address."""
    return "file" if url.startswith("data:") else url.partition("?")[0].rstrip("/").rpartition("/")[2] or "file"


def _guess(name: str | None) -> str:
    return mimetypes.guess_type(name or "")[0] or "application/octet-stream"


_TEXT = "tool_input"
"""The one argument of LangChain's oldest tools."""

Handler = Callable[[dict[str, Any], Context[Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ForeignTool:
    """The parts of a foreign tool that `Tool.from_schema` needs; the caller's options override the object's own `options`."""

    name: str
    description: str
    schema: Mapping[str, JSON]
    handler: Handler
    """Without an annotation of its result, which then may be needed by other tools whatever it is."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    result_schema: Mapping[str, JSON] | None = None


def read_pydantic_ai(tool: Any, given: Mapping[str, Any]) -> ForeignTool:
    """Read a `pydantic_ai.Tool`; `given` are the options that its user names.

    The arguments are validated by its own validator, the result is what its function returns; `ModelRetry` and
    `ToolFailed` become `ToolError`. Its function sees a `RunContext` with the run's data as `deps`. The content of a
    `ToolReturn` is part of the result; its metadata is left out, since the model doesn't see it.
    """
    schema = _take(tool, "function_schema", "a pydantic_ai.Tool")
    name = str(tool.name)
    if tool.prepare is not None:
        raise DefinitionError.about(
            name, "its `prepare` isn't asked: choose tools by Toolset.dynamic, and set prepare=None"
        )
    if tool.sequential and not {"resource", "slot"} & given.keys():
        raise DefinitionError.about(
            name, "it is `sequential`, so it runs alone: name a resource= that it shares with others"
        )
    options: dict[str, Any] = {"strict": tool.strict, "timeout": tool.timeout}
    if tool.requires_approval:
        options["approval"] = True

    async def run(arguments: dict[str, Any], context: Context[Any]):
        ctx = _find("pydantic_ai", "RunContext")(
            deps=context.data,
            model=None,
            usage=_find("pydantic_ai.usage", "RunUsage")(),
            prompt=context.message,
            tool_call_id=context.call_id,
            tool_name=name,
            run_id=context.run_id,
            retry=context.attempt - 1,
            tool_call_approved=bool(tool.requires_approval),
        )
        try:
            values = schema.validator.validate_python(arguments)
            if tool.args_validator is not None:
                checked = tool.args_validator(ctx, **values)
                if inspect.isawaitable(checked):
                    await checked
            result = await schema.call(values, ctx)
        except Exception as error:  # the other framework's tool: its own errors become ours, all others stay
            raise _translate(error, "pydantic_ai.exceptions", ("ModelRetry", "ToolFailed")) from error
        if not is_of(result, "pydantic_ai.messages", "ToolReturn"):
            return read_result(result)
        value = read_result(result.return_value)
        if result.content is None:
            return value
        # What the model shall see beside the value; there, a message of its own.
        parts = [result.content] if isinstance(result.content, str) else read_result(list(result.content))
        return {"return_value": value, "content": parts}

    returns = getattr(schema, "return_schema", None) or None
    if "ToolReturn" in str(getattr(schema.function, "__annotations__", {}).get("return")):
        returns = None  # it may have content beside its value
    return ForeignTool(name, str(tool.description or ""), schema.json_schema, run, options, returns)


def read_langchain(tool: Any, given: Mapping[str, Any]) -> ForeignTool:
    """Read a `langchain_core` tool: the result of `@tool`, a `StructuredTool`, or another `BaseTool`.

    It is called as a chain calls it, by `ainvoke`: its callbacks are called, its arguments parsed by its own model, and
    what it does about errors it still does. `ToolException` becomes `ToolError`. An artifact beside the content is left
    out, since only the content is for the model. An injected argument is the item, or the attribute, of that name of
    the run's data.
    """
    shown = _take(tool, "tool_call_schema", "a tool of langchain_core")
    name = str(tool.name)
    if tool.return_direct:
        raise DefinitionError.about(
            name, "it is `return_direct`: give it as Agent(output_tool=…), and set return_direct=False"
        )
    if set(tool.args) == {_TEXT}:  # a function of one text, of the time before schemas
        shown = {"type": "object", "properties": {_TEXT: {"type": "string"}}, "required": [_TEXT]}
    schema: Mapping[str, Any] = cast(Any, shown) if isinstance(shown, Mapping) else shown.model_json_schema()
    known: Mapping[str, Any] = {} if isinstance(shown, Mapping) else tool.get_input_schema().model_fields
    hidden = {field: known[field] for field in known if field not in (schema.get("properties") or {})}
    with_id = {field for field, info in hidden.items() if any(map(_is_call_id, info.metadata))}

    async def run(arguments: dict[str, Any], context: Context[Any]):
        if hidden:  # what is injected isn't the model's to say
            arguments = {key: value for key, value in arguments.items() if key not in hidden}
        for injected in hidden.keys() - with_id:
            arguments |= _inject(name, injected, hidden[injected], context.data)
        call: dict[str, Any] = {"type": "tool_call", "id": context.call_id, "name": name, "args": arguments}
        try:
            # As a call, where it wants to know its id; else as a function, whose result keeps its type.
            result = await tool.ainvoke(call if with_id else arguments)
        except Exception as error:  # the other framework's tool: its own errors become ours, all others stay
            raise _translate(error, "langchain_core.tools", ("ToolException",)) from error
        if is_of(result, "langchain_core.messages", "ToolMessage"):
            if result.status == "error":
                raise ToolError(str(result.content))
            return result.content
        if type(result).__name__ == "Command" and type(result).__module__.startswith("langgraph"):
            raise TypeError(f"{name} returns a Command to a graph of LangGraph, and there is none here")
        return result

    return ForeignTool(name, str(tool.description or ""), schema, run)


def read_openai_agents(tool: Any, given: Mapping[str, Any]) -> ForeignTool:
    """Read a `FunctionTool` of the OpenAI Agents SDK: the result of `@function_tool` or `agent.as_tool()`.

    Its `on_invoke_tool` gets the arguments as JSON and a `ToolContext` with the run's data. If it turns a
    failure into a text, as it does by default, that text is an ordinary result.
    """
    invoke = _take(tool, "on_invoke_tool", "a FunctionTool of the OpenAI Agents SDK")
    name = str(tool.name)
    guards = [
        *(getattr(tool, "tool_input_guardrails", None) or ()),
        *(getattr(tool, "tool_output_guardrails", None) or ()),
    ]
    if guards:
        raise DefinitionError.about(
            name, "its guardrails are asked by its own runner only: take them out, and check inside"
        )
    if callable(tool.is_enabled) or not tool.is_enabled:
        raise DefinitionError.about(name, "whether it is enabled isn't asked: choose tools by Toolset.dynamic")
    options: dict[str, Any] = {"strict": bool(tool.strict_json_schema), "timeout": tool.timeout_seconds}
    if callable(tool.needs_approval):
        if "approval" not in given:
            raise DefinitionError.about(
                name, "its needs_approval is a function of its own runner: give approval=, also a function"
            )
    elif tool.needs_approval:
        options["approval"] = True

    async def run(arguments: dict[str, Any], context: Context[Any]):
        text = dumps(arguments).decode()
        ctx = _find("agents.tool_context", "ToolContext")(
            context=context.data, tool_name=name, tool_call_id=context.call_id, tool_arguments=text
        )
        return read_result(await invoke(ctx, text))

    return ForeignTool(name, str(tool.description or ""), _relax(tool.params_json_schema), run, options)


def _is_call_id(mark: object) -> bool:
    kind = mark if isinstance(mark, type) else type(mark)
    return any(base.__name__ == "InjectedToolCallId" for base in kind.__mro__)


def _inject(name: str, field: str, info: Any, data: object) -> dict[str, Any]:
    """Find the arguments that the caller passes and the model doesn't see; empty if they are optional."""
    missing = object()
    given = (
        cast(Mapping[str, Any], data).get(field, missing)
        if isinstance(data, Mapping)
        else getattr(data, field, missing)
    )
    if given is not missing:
        return {field: given}
    if info.is_required():
        raise TypeError(f"{name} has {field!r} injected: give the run data= with an item or an attribute of that name")
    return {}


def _take(tool: object, name: str, expected: str) -> Any:
    found = getattr(tool, name, None)
    if found is None:
        raise DefinitionError(f"{tool!r:.100} is no tool to take over: expected {expected}")
    return found


def _find(module: str, name: str) -> Any:
    """Find a class of the framework, which is already imported: an object of it exists."""
    return getattr(sys.modules[module], name)


def _translate(error: Exception, module: str, names: tuple[str, ...]) -> Exception:
    """Translate an error to flowkit's; a message for the model reaches it unchanged."""
    if any(is_of(error, module, name) for name in names):
        return ToolError(str(error))
    if is_of(error, "pydantic", "ValidationError") or is_of(error, "pydantic_core", "ValidationError"):
        problems = cast(Any, error).errors()
        return ToolError("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems))
    return error


def _relax(schema: Any) -> Any:
    """Return the schema with nothing required that has a default: a strict one names all, whatever the code does."""
    if isinstance(schema, list):
        return [_relax(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    read = {key: _relax(value) for key, value in cast("Mapping[str, Any]", schema).items()}
    required, properties = read.get("required"), read.get("properties")
    if isinstance(required, list) and isinstance(properties, dict):
        known = cast("dict[str, Any]", properties)
        read["required"] = [
            name
            for name in cast("list[str]", required)
            if not (isinstance(known.get(name), dict) and "default" in known[name])
        ]
    return read

"""The last answer, read as the type that the agent promises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from typing_extensions import TypeForm

from flowkit.agent.found_json import drop_thinking, find_json
from flowkit.codec import JSON, dumps, loads
from flowkit.errors import DefinitionError
from flowkit.tools import Tool
from flowkit.tools.schema.aliases import make_alias

OutputT = TypeVar("OutputT")


class OutputInvalid(ValueError):
    """The answer isn't what was asked for; its text tells the model what to mend."""


@dataclass(frozen=True, slots=True)
class Output(Generic[OutputT]):
    """How an answer becomes a value: as it is for `str`, else JSON by `schema`.

    Servers want an object at the top, so any other type travels as `{"value": …}`, and is `wrapped`. With a `tool` its
    result is the value, and no text is.
    """

    adapter: TypeAdapter[OutputT] | None = None
    schema: Mapping[str, JSON] | None = None
    wrapped: bool = False
    tool: Tool[..., Any] | None = None

    def read(self, text: str) -> OutputT:
        """The value in an answer; raises `OutputInvalid`.

        Not every server holds its model to the schema: the one JSON value that fits is found with words, fences and
        thinking in tags around it, and taken where it should be wrapped and isn't. What stands in thinking is no answer.
        """
        if self.tool is not None:
            raise OutputInvalid(f"That is no answer yet: give it by calling {make_alias(self.tool.name)}.")
        if self.adapter is None:
            return cast(OutputT, text)
        try:
            return self._validate(text)
        except ValidationError as error:
            refused = error
        found: dict[bytes, OutputT] = {}
        spoken = drop_thinking(text)
        for piece in (spoken, *find_json(spoken)):
            try:
                value = self._validate(piece)
            except ValidationError as error:
                # What is wrong with JSON that is there tells more than that words are no JSON.
                refused = refused if piece is spoken else error
            else:
                found[dumps(self.dump(value))] = value
        if len(found) == 1:
            return next(iter(found.values()))
        form = 'only JSON, as {"value": …}' if self.wrapped else "only JSON"
        if found:
            raise OutputInvalid(f"That holds {len(found)} different answers. Answer again with one of them, {form}.")
        problems = "; ".join(
            f"{'/'.join(map(str, item['loc'])) or 'the answer'}: {item['msg']}" for item in refused.errors()[:5]
        )
        raise OutputInvalid(f"That isn't the JSON that was asked for: {problems}. Answer again, {form}.")

    def _validate(self, text: str) -> OutputT:
        assert self.adapter is not None, "a text is taken as it is"
        return self.adapter.validate_json(_unwrap(text) if self.wrapped else text)

    def dump(self, value: OutputT) -> JSON:
        """The value as JSON, for events and the journal."""
        if self.tool is not None:
            return self.tool.dump(value)
        return cast(
            JSON, value if self.adapter is None else self.adapter.dump_python(value, mode="json", by_alias=True)
        )


def make_output(output_type: TypeForm[OutputT]) -> Output[OutputT]:
    """The way to read `output_type`; raises `DefinitionError` for a type that has no JSON schema."""
    if output_type is str:
        return Output()
    try:
        adapter = TypeAdapter(output_type)
        schema: dict[str, Any] = adapter.json_schema()
    except (PydanticUserError, NameError) as error:
        raise DefinitionError(f"output_type {output_type!r} has no JSON schema: {error}") from error
    if schema.get("type") == "object":
        return Output(adapter, schema)
    definitions = schema.pop("$defs", None)
    envelope: dict[str, Any] = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    if definitions:
        envelope["$defs"] = definitions
    return Output(adapter, {**envelope, "additionalProperties": False}, wrapped=True)


def _unwrap(text: str) -> str | bytes:
    try:
        answer = loads(text)
    except ValueError:
        return text
    return dumps(answer["value"]) if isinstance(answer, dict) and answer.keys() == {"value"} else text


def make_tool_output(tool: Tool[..., Any]) -> Output[Any]:
    """Take this tool's result for the answer."""
    return Output(tool=tool)

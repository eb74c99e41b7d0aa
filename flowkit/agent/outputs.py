"""The last answer, read as the type that the agent promises."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from typing_extensions import TypeForm

from flowkit.codec import JSON, dumps, loads
from flowkit.errors import DefinitionError

OutputT = TypeVar("OutputT")
_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)\n```", re.DOTALL)


class OutputInvalid(ValueError):
    """The answer isn't what was asked for; its text tells the model what to mend."""


@dataclass(frozen=True, slots=True)
class Output(Generic[OutputT]):
    """How an answer becomes a value: as it is for `str`, else JSON by `schema`.

    Servers want an object at the top, so any other type travels as `{"value": …}`, and is `wrapped`.
    """

    adapter: TypeAdapter[OutputT] | None = None
    schema: Mapping[str, JSON] | None = None
    wrapped: bool = False

    def read(self, text: str) -> OutputT:
        """The value in an answer; raises `OutputInvalid`.

        Not every server holds its model to the schema: JSON inside a fence of Markdown, with words around it, is
        taken, and so is a value that should be wrapped and isn't.
        """
        if self.adapter is None:
            return cast(OutputT, text)
        text = _take_from_fence(text)
        try:
            return self.adapter.validate_json(_unwrap(text) if self.wrapped else text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'/'.join(map(str, item['loc'])) or 'the answer'}: {item['msg']}" for item in error.errors()[:5]
            )
            form = 'only JSON, as {"value": …}' if self.wrapped else "only JSON"
            raise OutputInvalid(f"That isn't the JSON that was asked for: {problems}. Answer again, {form}.") from None

    def dump(self, value: OutputT) -> JSON:
        """The value as JSON, for events and the journal."""
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


def _take_from_fence(text: str) -> str:
    fenced = None if text.lstrip().startswith(("{", "[")) else _FENCE.search(text)
    return fenced.group(1) if fenced else text


def _unwrap(text: str) -> str | bytes:
    try:
        answer = loads(text)
    except ValueError:
        return text
    return dumps(answer["value"]) if isinstance(answer, dict) and answer.keys() == {"value"} else text

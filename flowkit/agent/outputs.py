"""The last answer, read as the type that the agent promises."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from flowkit.codec import JSON
from flowkit.errors import DefinitionError

OutputT = TypeVar("OutputT")
_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\n(.*)\n```\s*\Z", re.DOTALL)


class OutputInvalid(ValueError):
    """The answer isn't what was asked for; its text tells the model what to mend."""


@dataclass(frozen=True, slots=True)
class Output(Generic[OutputT]):
    """How an answer becomes a value: as it is for `str`, else JSON by `schema`.

    Servers want an object at the top, so any other type travels as `{"value": …}`: then `envelope` reads it.
    """

    adapter: TypeAdapter[OutputT] | None = None
    schema: Mapping[str, JSON] | None = None
    envelope: TypeAdapter[dict[str, Any]] | None = None

    def read(self, text: str) -> OutputT:
        """The value in an answer; raises `OutputInvalid`. A fence of Markdown around the JSON is taken off."""
        if self.adapter is None:
            return cast(OutputT, text)
        fenced = _FENCE.match(text)
        text = fenced.group(1) if fenced else text
        try:
            if self.envelope is not None:
                return self.adapter.validate_python(self.envelope.validate_json(text).get("value"))
            return self.adapter.validate_json(text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'/'.join(map(str, item['loc'])) or 'the answer'}: {item['msg']}" for item in error.errors()[:5]
            )
            raise OutputInvalid(
                f"That isn't the JSON that was asked for: {problems}. Answer again, only JSON."
            ) from None

    def dump(self, value: OutputT) -> JSON:
        """The value as JSON, for events and the journal."""
        return cast(
            JSON, value if self.adapter is None else self.adapter.dump_python(value, mode="json", by_alias=True)
        )


def make_output(output_type: type[OutputT]) -> Output[OutputT]:
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
    return Output(adapter, {**envelope, "additionalProperties": False}, TypeAdapter(dict[str, Any]))

"""The last answer, read as the type that the agent promises."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict, TypeForm

from flowkit.agent.growing.shapes import GrowingShape, make_named_shape, make_schema_shape, make_shape
from flowkit.codec import JSON, dumps, loads
from flowkit.errors import DefinitionError
from flowkit.tools import Tool
from flowkit.tools.schema.aliases import make_alias

OutputT = TypeVar("OutputT")


class OutputInvalid(ValueError):
    """The answer doesn't fit the output type; the text tells the model what to correct."""


@dataclass(frozen=True, slots=True)
class Output(Generic[OutputT]):
    """How an answer becomes a value: as it is for `str`, else JSON by `schema`.

    Servers want an object at the top, so any other type travels as `{"value": …}`, and is `wrapped`. With a `tool` its
    result is the value, and no text is. With `names` there are several types: the value is a dict of one name and the answer, until it
    is opened.
    """

    adapter: TypeAdapter[OutputT] | None = None
    schema: Mapping[str, JSON] | None = None
    wrapped: bool = False
    tool: Tool[..., Any] | None = None
    names: tuple[str, ...] = ()
    shapes: "Shapes | None" = None

    @property
    def shape(self) -> GrowingShape | None:
        """The parts that can be shown before the answer is complete; None for text."""
        return None if self.shapes is None else self.shapes.get()

    def open(self, value: OutputT) -> tuple[OutputT, str | None]:
        """Return the answer and the name that it came under."""
        if not self.names:
            return value, None
        name, opened = next(iter(cast("Mapping[str, OutputT]", value).items()))
        return opened, name

    def close(self, value: OutputT, name: str | None) -> OutputT:
        """Return the answer under its name again, as `open` received it."""
        return value if name is None else cast(OutputT, {name: value})

    def place(self, answer: object, name: str | None) -> tuple[OutputT, str | None]:
        """Return an answer that a guard put in place of one, and the name that it fits under; raises `TypeError`."""
        if self.adapter is None:
            if self.tool is None and not isinstance(answer, str):
                raise TypeError("expected a text")
            return cast(OutputT, answer), name
        for one in (name, *self.names):
            try:
                # Serialized without validation: the validators have already run on this value, or don't apply to it.
                self.adapter.dump_python(self.close(cast(OutputT, answer), one), mode="json", warnings="error")
            except PydanticSerializationError:
                continue
            return cast(OutputT, answer), one
        raise TypeError("expected a value of the agent's output type")

    def read(self, text: str) -> OutputT:
        """Read the value of an answer; raises `OutputInvalid`.

        Not every server enforces the schema. So the one JSON value that fits is found between words, fences and tagged
        thinking, and accepted without its wrapper. JSON inside thinking is no answer.
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
                # The error of existing JSON is more helpful than that of a text that isn't JSON.
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
        """Convert the value to JSON, for events and the journal."""
        if self.tool is not None:
            return self.tool.dump(value)
        return cast(
            JSON, value if self.adapter is None else self.adapter.dump_python(value, mode="json", by_alias=True)
        )


class Shapes:
    """The shape of an answer, made when it is first needed."""

    def __init__(self, make: Callable[[], GrowingShape]) -> None:
        self._make = make
        self._made: GrowingShape | None = None

    def get(self) -> GrowingShape:
        """Make the shape, or return the one that was made."""
        if self._made is None:
            self._made = self._make()
        return self._made


def make_output(output_type: TypeForm[OutputT] | Mapping[str, TypeForm[OutputT]]) -> Output[OutputT]:
    """Read `output_type`, a type or types by name; raises `DefinitionError` for a type that has no JSON schema."""
    if output_type is str:
        return Output()
    named = cast("Mapping[str, Any]", output_type) if isinstance(output_type, Mapping) else None
    adapter: TypeAdapter[Any]
    adapter, schema = _adapt(output_type if named is None else _make_choice(named))
    names = () if named is None else tuple(named)
    if schema.get("type") == "object" and named is None:
        return Output(adapter, schema, shapes=Shapes(lambda: make_shape(adapter)))

    def make() -> GrowingShape:
        if named is None:
            return _wrap_shape(make_shape(adapter))
        return make_named_shape(
            {"value": make_named_shape({name: make_shape(_adapt(one)[0]) for name, one in named.items()})}
        )

    return Output(adapter, _envelop(schema), wrapped=True, names=names, shapes=Shapes(make))


def _make_choice(types: Mapping[str, Any]) -> Any:
    """Make an object type with one field, whose name selects the type: the server's grammar enforces both together."""
    if not types or not all(isinstance(name, str) and name for name in types):  # pyright: ignore[reportUnnecessaryIsInstance]  # the user's
        raise DefinitionError("output_type={…} takes at least one type, each under its name")
    choices: list[Any] = []
    for name, one in types.items():
        # Called, not written as a class: the names are the user's.
        make_holder = cast("Callable[[str, Mapping[str, Any]], Any]", TypedDict)
        choices.append(with_config(ConfigDict(extra="forbid"))(make_holder(name, {name: one})))
    return Union[tuple(choices)]  # noqa: UP007  # there are as many as the user names


def _adapt(output_type: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output_type)
        return adapter, adapter.json_schema()
    except (PydanticUserError, NameError) as error:
        raise DefinitionError(f"output_type {output_type!r} has no JSON schema: {error}") from error


def _wrap_shape(inner: GrowingShape) -> GrowingShape:
    """Wrap the shape as `{"value": …}`, or return the bare value's where that is a list."""
    shape = make_named_shape({"value": inner})
    shape.items, shape.check = inner.items, inner.check
    return shape


def _envelop(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = schema.pop("$defs", None)
    envelope: dict[str, Any] = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    if definitions:
        envelope["$defs"] = definitions
    return {**envelope, "additionalProperties": False}


def _unwrap(text: str) -> str | bytes:
    try:
        answer = loads(text)
    except ValueError:
        return text
    return dumps(answer["value"]) if isinstance(answer, dict) and answer.keys() == {"value"} else text


def make_tool_output(tool: Tool[..., Any]) -> Output[Any]:
    """Take this tool's result for the answer."""
    return Output(tool=tool, shapes=None if tool.secrets else Shapes(lambda: make_schema_shape(tool.parameters)))


MAX_TRIES = 64
"""The limit on brackets of one text at which JSON is searched; each try may read to the end of the text."""

_OPENING = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_BEGINNING = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()


def drop_thinking(text: str) -> str:
    """Return the text after tagged thinking; some chat templates write the opening tag, so only the closing one comes.

    >>> drop_thinking('<think>one or two?</think>{"count": 1}')
    '{"count": 1}'
    """
    pieces = _CLOSING.split(text)
    if len(pieces) > 1:
        return pieces[-1]
    return "" if _OPENING.match(text) else text


def find_json(text: str) -> Iterator[str]:
    """Find the JSON objects and lists in a text: the outermost ones, and the values that fill a code fence."""
    place, tries = 0, 0
    while tries < MAX_TRIES and (found := _BEGINNING.search(text, place)):
        tries += 1
        try:
            _, end = cast("tuple[JSON, int]", _DECODER.raw_decode(text, found.start()))
        except (ValueError, RecursionError):
            place = found.end()
            continue
        yield text[found.start() : end]
        place = end
    for fenced in _FENCE.finditer(text):
        yield fenced[1]

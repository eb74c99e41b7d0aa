"""What a recipe gives: its output checked, and read as the type that it promises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from jsonschema import Draft202012Validator
from pydantic import ValidationError

from flowkit.codec import JSON, dumps
from flowkit.errors import DefinitionError, ToolResultError
from flowkit.tools.schema.results import ResultType
from flowkit.tools.schema.signatures import MISSING

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RecipeOutput(Generic[R_co]):
    """How a recipe's output, as JSON, becomes its value; `schema` is None when it may be anything."""

    read: Callable[[JSON], R_co]
    schema: Mapping[str, JSON] | None = None

    def check(self, value: object) -> JSON:
        """The output as it is; raises `ToolResultError` when it isn't what was promised."""
        self.read(cast(JSON, value))
        return cast(JSON, value)


def output_of_type(recipe: str, annotation: Any) -> RecipeOutput[Any]:
    """The output of a return annotation; raises `DefinitionError` for one that can't be JSON."""
    if annotation is MISSING or annotation is Any:
        return RecipeOutput(lambda value: value)
    result = ResultType(annotation)
    adapter = result.adapter
    if adapter is None:
        raise DefinitionError(f"recipe {recipe!r}: its output, {annotation!r}, can't be JSON")

    def read(value: JSON) -> Any:
        try:
            return adapter.validate_json(dumps(value))
        except ValidationError as error:
            first = error.errors()[0]
            raise _misfit(recipe, first["loc"], first["msg"], len(error.errors())) from None

    return RecipeOutput(read, result.schema)


def output_of_schema(recipe: str, schema: Mapping[str, JSON] | None) -> RecipeOutput[JSON]:
    """The output of a recipe file."""
    if schema is None:
        return RecipeOutput(lambda value: value)
    validator = Draft202012Validator(cast(Any, schema))

    def read(value: JSON) -> JSON:
        errors = list(cast(Any, validator).iter_errors(value))
        if errors:
            raise _misfit(recipe, tuple(errors[0].absolute_path), errors[0].message, len(errors))
        return value

    return RecipeOutput(read, schema)


def _misfit(recipe: str, path: tuple[object, ...], problem: str, count: int) -> ToolResultError:
    where = ".".join(map(str, path))
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ToolResultError(
        f"recipe {recipe!r}: its output{f' at {where}' if where else ''} doesn't fit: {problem}{more}"
    )

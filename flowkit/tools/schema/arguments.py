"""Arguments from outside as the function's values: validated, repaired only when plain validation failed.

Arguments are read as JSON, also when they come as a dict: a strict date or an enum in a strict model takes its JSON
form in text only. A dict that holds Python values (`tool.call(when=date.today())`) is read as Python; so is one for a
tool of plain types (numbers, texts, lists and dicts of them), which have one form only, since it takes a third of the time.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, NamedTuple, cast

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_jsonable_python
from pydantic_core.core_schema import CoreSchema, TypedDictField

from flowkit.codec import JSON
from flowkit.errors import ToolArgumentsError
from flowkit.masking import MASK, NO_SECRETS, SecretPlaces
from flowkit.tools.schema.problems import Problem, describe, group, shorten
from flowkit.tools.schema.repair import Repairer


class Arguments(NamedTuple):
    """The arguments of one call of a function; a named tuple, since one is made for each call and a frozen dataclass takes twice as long.

    `values` have the annotated types, defaults filled in, without the `Context`. `repaired` has a short
    line for each value that was repaired; `source` is the input after that, as text or as a dict.
    """

    values: dict[str, Any]
    source: Mapping[str, object] | str | bytes
    repaired: tuple[str, ...] = ()
    secrets: SecretPlaces = NO_SECRETS

    @property
    def given(self) -> Mapping[str, object]:
        """The arguments as a dict of JSON, as they were given and repaired."""
        source = self.source
        # Read here and not before: most calls run without anybody looking.
        return cast(Mapping[str, object], from_json(source)) if isinstance(source, (str, bytes)) else source

    @property
    def shown(self) -> JSON:
        """The values as JSON for people and logs, secrets masked."""
        shown = {
            name: MASK if name in self.secrets else to_jsonable_python(value, bytes_mode="base64", fallback=shorten)
            for name, value in self.values.items()
        }
        touched = self.secrets.list_arguments()
        if not touched:
            return shown
        shown |= {name: self.secrets.mask_at(shown[name], [name]) for name in touched if name in shown}
        return self.secrets.mask_repeats(shown, self.secrets.find(self.given))


_EXACT = (int, bool, str)
_make: Callable[[type[Arguments], tuple[object, ...]], Arguments] = cast(Any, tuple).__new__
"""Makes a named tuple of all its values, in half the time of its own constructor."""


class ArgumentsReader:
    """Reads the arguments of one tool; `names` are the parameters, `secrets` those never shown."""

    def __init__(
        self,
        tool: str,
        adapter: TypeAdapter[dict[str, Any]],
        names: tuple[str, ...],
        repairer: Repairer,
        secrets: SecretPlaces = NO_SECRETS,
    ) -> None:
        self.tool = tool
        self.names = names
        self.secrets = secrets
        self._repairer = repairer
        self.adapter = adapter
        self._read_text = adapter.validator.validate_json
        self._read_python = adapter.validator.validate_python
        self.is_plain = is_plain(adapter.core_schema)

    @cached_property
    def _exact(self) -> tuple[Mapping[str, type], frozenset[str]] | None:
        # First needed for a call with references: most tools never get one.
        return _find_exact(self.adapter.core_schema)

    def renamed(self, tool: str) -> "ArgumentsReader":
        """Copy for this tool under another name."""
        reader = copy(self)
        reader.tool = tool
        return reader

    def read(self, given: Mapping[str, object] | str | bytes) -> Arguments:
        """Read the function's values; raises `ToolArgumentsError` with a line for each wrong argument."""
        try:
            if self.is_plain and given.__class__ is dict:
                # The way of most calls of a graph, so without a step between: see `_read_mapping`. And a local first:
                # Python 3.11 remembers where an attribute is, but looks anew for one that is called at once.
                read = self._read_python
                try:
                    return _make(Arguments, (read(given), given, (), self.secrets))
                except ValidationError:
                    pass
            if isinstance(given, (str, bytes)):
                return Arguments(self._read_text(given), given, (), self.secrets)
            return Arguments(self._read_mapping(given), given, (), self.secrets)
        except ValidationError as error:
            return self._read_repaired(given, error)

    def is_plainly_right(self, given: Mapping[str, object], ignored: Collection[str]) -> bool:
        """Return whether `check` would certainly find nothing; False means unknown.

        Most calls with references have, beside them, a few numbers and texts for parameters of just these types.
        """
        found = self._exact
        if found is None:
            return False
        exact, required = found
        for name, value in given.items():
            if name in ignored:
                if name not in self.names:
                    return False
            elif type(value) is not exact.get(name) or (type(value) is str and not value.isascii()):
                return False  # a text may hold half a character, which pydantic refuses
        return required <= given.keys()

    def check(self, given: Mapping[str, object], ignored: Collection[str]) -> None:
        """Check like `read`, but ignore problems of the ignored arguments."""
        try:
            self._read_mapping(given)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            if all(one["type"] == "missing" and one["loc"][0] in ignored and len(one["loc"]) == 1 for one in found):
                return  # what is usual of a call with references, told without the words for a person
        else:
            return
        left = self._find_problems(given, ignored)
        if not left:
            return
        # Repaired here, since reading repairs nothing as long as an argument is missing.
        mended, told = self._repairer.repair(given, left)
        if not told or self._find_problems(mended, ignored):
            raise self._refuse(left, given)

    def _find_problems(self, given: Mapping[str, object], ignored: Collection[str]) -> tuple[Problem, ...]:
        try:
            self.read(given)
        except RefusedArguments as error:
            return tuple(problem for problem in error.found if not problem.path or problem.path[0] not in ignored)
        return ()

    def _refuse(self, problems: tuple[Problem, ...], given: object) -> "RefusedArguments":
        return RefusedArguments(self.tool, describe(problems, given, self.names, self.secrets), problems)

    def _read_mapping(self, given: Mapping[str, object]) -> dict[str, Any]:
        if self.is_plain:
            try:
                return self._read_python(given)
            except ValidationError:
                pass  # a Python value may still have a form in JSON that is right, such as a UUID for a text
        try:
            text = orjson.dumps(given, option=_PASS)
        except TypeError:
            return self._read_python(dict(given))  # Python values that aren't JSON
        # NaN is written as null, too; the walk happens only for a text that holds a null.
        if b"null" in text and not _is_json(given):
            return self._read_python(dict(given))
        return self._read_text(text)

    def _read_repaired(self, given: Mapping[str, object] | str | bytes, error: ValidationError) -> Arguments:
        repaired: list[str] = []
        if isinstance(given, (str, bytes)):
            parsed = parse_arguments(self.tool, given, repaired)
            if repaired:
                try:
                    return Arguments(self._read_mapping(parsed), parsed, tuple(repaired), self.secrets)
                except ValidationError as second:
                    error = second
        else:
            parsed = dict(given)
        problems = group(error.errors(include_url=False, include_context=True, include_input=False), parsed)
        mended, told = self._repairer.repair(parsed, problems)
        if told:
            try:
                return Arguments(self._read_mapping(mended), mended, (*repaired, *told), self.secrets)
            except ValidationError:
                pass
        raise self._refuse(problems, parsed) from None


def is_plain(schema: CoreSchema | TypedDictField) -> bool:
    """Return whether pydantic reads such a value alike from Python and from JSON, and makes a new one."""
    match schema:
        case {"strict": True}:
            return False
        case {"type": "int" | "float" | "bool" | "str" | "none"}:
            return True
        case {"type": "nullable" | "default" | "typed-dict-field", "schema": inner}:
            return is_plain(inner)
        case {"type": "list", "items_schema": items}:
            return is_plain(items)
        case {"type": "dict", "keys_schema": {"type": "str"}, "values_schema": values}:
            return is_plain(values)
        case {"type": "typed-dict", "fields": fields, "extra_behavior": "forbid"}:
            return all(map(is_plain, fields.values()))
        case _:
            return False


def _find_exact(schema: CoreSchema) -> tuple[Mapping[str, type], frozenset[str]] | None:
    """Find the arguments that are valid whenever they have this type, and the required ones; None if unknown."""
    match schema:
        case {"type": "typed-dict", "fields": fields, "extra_behavior": "forbid", "config": config} if (
            config.keys() <= {"title", "extra_fields_behavior"}
            and not any("validation_alias" in field for field in fields.values())
        ):
            schemas = {name: _leave_default(field["schema"]) for name, field in fields.items()}
            exact = {
                name: kind for name, inner in schemas.items() for kind in _EXACT if inner == {"type": kind.__name__}
            }
            return exact, frozenset(name for name, field in fields.items() if field.get("required"))
        case _:
            return None


def _leave_default(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["schema"] if schema["type"] == "default" else schema


def parse_arguments(tool: str, text: str | bytes, repaired: list[str]) -> dict[str, object]:
    """Parse JSON text as a dict; repairs are added to `repaired`. Raises `ToolArgumentsError`."""
    try:
        parsed: object = orjson.loads(text) if text.strip() else None
        if isinstance(parsed, str):
            repaired.append("the arguments: read from JSON text inside a JSON string")
            parsed = orjson.loads(parsed) if parsed.strip() else None
    except orjson.JSONDecodeError as error:
        raise ToolArgumentsError(tool, [f"the arguments aren't JSON: {error}"]) from None
    if parsed is None:
        repaired.append("the arguments: nothing read as {}")
        return {}
    if not isinstance(parsed, dict):
        raise ToolArgumentsError(tool, [f"the arguments are {shorten(parsed)}, expected an object"])
    return cast(dict[str, object], parsed)


class RefusedArguments(ToolArgumentsError):
    """Keeps the errors that were found, for a check that ignores some of them."""

    def __init__(self, tool: str, lines: Collection[str], found: tuple[Problem, ...]) -> None:
        super().__init__(tool, tuple(lines))
        self.found = found


_PASS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def _is_json(value: object) -> bool:
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, Mapping):
        return all(_is_json(item) for item in cast(Mapping[str, object], value).values())
    if isinstance(value, (list, tuple)):
        return all(_is_json(item) for item in cast(Sequence[object], value))
    return True

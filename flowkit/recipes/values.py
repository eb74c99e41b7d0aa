"""Values and conditions of a recipe file: what their `${{ … }}` mean at the place where they stand."""

from collections.abc import Mapping
from typing import Any, NoReturn, cast

from flowkit.codec import JSON
from flowkit.errors import GraphError, RecipeFileError
from flowkit.graph import INPUTS, item_id
from flowkit.graph.conditions import Both, Compare, Condition, Either, IsIn, IsNone, IsTrue, Not, Operator
from flowkit.recipes.data import COMPARISONS
from flowkit.recipes.yaml_source import Path, YamlSource, join_errors
from flowkit.references import Reference, parse_expression
from flowkit.schema_paths import Schema, find_mismatch, find_problem
from flowkit.suggestions import suggest

_OPERATORS: dict[str, Operator] = {word: cast(Operator, operator) for operator, word in COMPARISONS.items()}


class FileScope:
    """The names that may be used at a place: steps and the items of `each`, to their ids."""

    def __init__(self, prefix: str, outer: "FileScope | None" = None, each: str | None = None) -> None:
        self.prefix = prefix
        self.outer = outer
        self.steps: dict[str, str] = {}
        self.each = each

    def find_step(self, name: str) -> str | None:
        """Find the nearest step of this name; a leading `/` makes it a whole id."""
        if name.startswith("/"):
            return name[1:] if name[1:] in self.all_ids() else None
        return self.steps.get(name) or (None if self.outer is None else self.outer.find_step(name))

    def all_ids(self) -> set[str]:
        return set(self.steps.values()) | (set() if self.outer is None else self.outer.all_ids())

    def all_names(self) -> list[str]:
        return [*self.steps, *(() if self.outer is None else self.outer.all_names())]

    def eaches(self) -> list[str]:
        """List the ids of the `each` around this place, the nearest first."""
        above = [] if self.outer is None else self.outer.eaches()
        return above if self.each is None else [self.each, *above]


class ValueReader:
    """Reads the values of one file; `inputs` is their schema, `results` the schemas of the steps where known, by id."""

    def __init__(self, source: YamlSource, inputs: Schema, results: Mapping[str, Schema]) -> None:
        self._source = source
        self._inputs = inputs
        self._results = results

    def read_arguments(self, path: Path, data: Mapping[str, Any], scope: FileScope) -> dict[str, object]:
        """Read the arguments of a step under `with`."""
        given = cast(Mapping[str, JSON], data.get("with", {}))
        found: dict[str, object] = {}
        errors: list[RecipeFileError] = []
        for name, value in given.items():
            try:
                found[name] = self.read((*path, "with", name), value, scope)
            except RecipeFileError as error:
                errors.append(error)
        if errors:
            raise join_errors(errors)
        return found

    def read(self, path: Path, value: JSON, scope: FileScope) -> object:
        """Read a value with its expressions as references; `$${{` is an escaped `${{`."""
        if isinstance(value, dict):
            return {key: self.read((*path, key), item, scope) for key, item in value.items()}
        if isinstance(value, list):
            return [self.read((*path, index), item, scope) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${{" not in value:
            return value
        if "${{" not in value.replace("$${{", ""):
            return value.replace("$${{", "${{")
        try:
            names = parse_expression(value)
        except GraphError as error:
            self.fail(path, str(error))
        return value if names is None else self._reference(path, names, scope)

    def _reference(self, path: Path, names: Path, scope: FileScope) -> Reference:
        root, *rest = names
        match root, rest:
            case "inputs", _:
                problem = find_problem(self._inputs, tuple(rest))
                if problem is not None:
                    self.fail(path, f"inputs: {problem}")
                return Reference(INPUTS, tuple(rest))
            case "item", _ if scope.eaches():
                return Reference(item_id(scope.eaches()[0]), tuple(rest))
            case "items", [str() as name, *inner]:
                step = self.find_step(path, name, scope)
                if step not in scope.eaches():
                    self.fail(path, f"{name!r} isn't an each around this place")
                return Reference(item_id(step), tuple(inner))
            case "steps", [str() as name, *inner]:
                return self._step_reference(path, name, tuple(inner), scope)
            case _:
                roots = ["inputs.name", "steps.name"] + (["item"] if scope.eaches() else [])
                found = ".".join(map(str, names))
                return self.fail(path, f"a reference begins with {', '.join(roots)}; found {found!r}")

    def _step_reference(self, path: Path, name: str, inner: Path, scope: FileScope) -> Reference:
        step = self.find_step(path, name, scope)
        schema = self._results.get(step)
        problem = None if schema is None else find_problem(schema, inner)
        if problem is not None:
            self.fail(path, f"steps.{name}: {problem}")
        return Reference(step, inner)

    def find_step(self, path: Path, name: str, scope: FileScope) -> str:
        """Find the id of the step that `name` means at this place."""
        found = scope.find_step(name)
        if found is None:
            self.fail(path, f"there is no step {name!r} here; {suggest(name, scope.all_names())}")
        return found

    def read_condition(self, path: Path, data: Mapping[str, Any], scope: FileScope) -> Condition:
        """Read a condition in the words of a file."""
        match data:
            case {"not": inner}:
                return Not(self.read_condition((*path, "not"), inner, scope))
            case {"all": parts}:
                return self._join((*path, "all"), parts, scope, Both)
            case {"any": parts}:
                return self._join((*path, "any"), parts, scope, Either)
            case _:
                pass
        value = self.read((*path, "value"), data["value"], scope)
        word = next(key for key in data if key != "value")
        if word == "is_none":
            return IsNone(value)
        if word == "is_true":
            return IsTrue(value)
        other = self.read((*path, word), data[word], scope)
        if word == "is_in":
            if not isinstance(other, (Reference, list)):
                self.fail((*path, word), "expected a list, or a reference to one")
            return IsIn(value, tuple(cast(list[object], other)) if isinstance(other, list) else other)
        return Compare(value, _OPERATORS[word], other)

    def _join(self, path: Path, parts: list[Any], scope: FileScope, kind: type[Both] | type[Either]) -> Condition:
        joined, *rest = [self.read_condition((*path, index), part, scope) for index, part in enumerate(parts)]
        for condition in rest:
            joined = kind(joined, condition)
        return joined

    def check_types(self, path: Path, parameters: Mapping[str, JSON], arguments: Mapping[str, object]) -> None:
        """Refuse a reference to a value of a type that its parameter never takes."""
        errors: list[RecipeFileError] = []
        for name, value in arguments.items():
            if not isinstance(value, Reference):
                continue
            schema = self._inputs if value.call_id == INPUTS else self._results.get(value.call_id)
            mismatch = None if schema is None else find_mismatch(schema, value.path, parameters, name)
            if mismatch is not None:
                errors.append(self.make_error((*path, "with", name), f"this {mismatch}"))
        if errors:
            raise join_errors(errors)

    def fail(self, path: Path, problem: str, *, at_key: bool = False) -> NoReturn:
        """Raise `RecipeFileError` for the value at `path`."""
        raise self.make_error(path, problem, at_key=at_key)

    def make_error(self, path: Path, problem: str, *, at_key: bool = False) -> RecipeFileError:
        """Make the error that `fail` raises."""
        return self._source.make_error(path, f"{_dotted(path)}: {problem}", at_key=at_key)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))

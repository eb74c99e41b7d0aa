"""Cases in a YAML file: requests with the expected results.

A file is read as plain data and validated against `cases.schema.json`, which editors use, too. All errors are reported
together, each with its line.
"""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, DefinitionError
from flowkit.history import read_history
from flowkit.messages import Audio, Content, File, Image, Message, read_content, text_of
from flowkit.recipes.yaml_source import Path as Place
from flowkit.recipes.yaml_source import YamlSource, read_yaml
from flowkit.suggestions import suggest

Check = Callable[[str], object]
"""True or None for a right answer, False or what is wrong with it, or it raises `AssertionError`."""

STUB = "done (a rehearsal: nothing was changed)"
"""What a write gives whose result nobody names."""


_MEDIA: Mapping[str, type[Image | Audio | File]] = {"image": Image, "audio": Audio, "file": File}


class CasesError(DefinitionError):
    """A file of cases that can't be used; `.problems` holds a line for each thing that is wrong, from the top."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class ExpectedCall:
    """A call that is right: of one of these tools, with these arguments; `only` with no others."""

    tools: tuple[str, ...]
    arguments: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    only: bool = False


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """The checks of an answer; all that are set must pass."""

    exact: str | None = None
    contains: tuple[str, ...] = ()
    contains_any: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    regex: str | None = None
    function: Check | None = None
    judge: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request with the right result; `calls` and `answer` are None if they aren't judged.

    `parts` are the whole message if it has images, audio or files. `results` maps tools to results returned without running.
    """

    name: str
    message: str
    user: str | None = None
    data: Mapping[str, str] = field(default_factory=dict[str, str])
    history: tuple[Message, ...] = ()
    calls: tuple[ExpectedCall, ...] | None = None
    more_calls: bool = False
    answer: AnswerCheck | None = None
    results: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    parts: tuple[Content, ...] = ()

    @property
    def content(self) -> str | tuple[Content, ...]:
        """What the user says."""
        return self.parts or self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesFile:
    """All cases; `stub` is the result of writes without a named one, `judge` names the model that judges."""

    cases: tuple[Case, ...]
    stub: JSON = STUB
    judge: str | None = None


@cache
def read_schema() -> dict[str, Any]:
    """Read the JSON Schema of a file of cases."""
    return json.loads(files("flowkit").joinpath("cases.schema.json").read_text(encoding="utf-8"))


def load_cases(path: str | Path, tools: Sequence[str] | None = None) -> CasesFile:
    """Read a file; `tools` are the app's tool names, None if they aren't known before a run.

    Raises `CasesError` with all errors of the file, `ConfigurationError` if it doesn't exist.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the cases {str(path)!r} can't be read: {error.strerror}") from error
    try:
        source = read_yaml(data, str(path))
    except DefinitionError as error:
        raise CasesError([str(error).replace("expected a recipe", "expected cases")]) from error
    problems = _find_problems(source)
    if problems:
        raise CasesError(problems)
    reader = _Reader(source, path.parent, tools)
    read = reader.read()
    if reader.problems:
        raise CasesError([f"{source.name}:{line}: {text}" for line, text in sorted(reader.problems)])
    return read


def _find_problems(source: YamlSource) -> list[str]:
    """Find what the schema doesn't allow, in the order of the file."""
    errors: Iterator[ValidationError] = cast(Any, Draft202012Validator(read_schema())).iter_errors(source.value)
    found: set[tuple[int, str]] = set()
    for error in errors:
        path = tuple(error.absolute_path)
        where = f"{'.'.join(map(str, path))}: " if path else ""
        for key, text in _explain(error):
            place = source.places.get((*path, key) if key is not None else path) or source.places[path]
            found.add((place.key_line, where + text))
    return [f"{source.name}:{line}: {text}" for line, text in sorted(found)]


def _explain(error: ValidationError) -> Iterator[tuple[str | None, str]]:
    """Yield what is wrong, and the key that it is about."""
    value, expected = cast(Any, error.instance), cast(Any, error.validator_value)
    schema = cast(dict[str, Any], error.schema)
    match error.validator:
        case "additionalProperties" if expected is False:
            known = list(schema.get("properties", {}))
            for key in value:
                if key not in known:
                    yield key, f"unknown key {key!r}; {suggest(key, known)}"
        case "required":
            for key in expected:
                if key not in value:
                    yield None, f"the key {key!r} is missing"
        case "type":
            kinds = [expected] if isinstance(expected, str) else expected
            words = {"object": "keys with values", "array": "a list", "string": "text", "boolean": "true or false"}
            yield None, f"expected {' or '.join(words.get(kind, f'a {kind}') for kind in kinds)}, found {value!r:.60}"
        case "minItems" | "minLength" | "minProperties":
            yield None, "is empty"
        case _:
            yield None, error.message


class _Reader:
    """Values of a file whose form is right; what is wrong with them all the same is collected."""

    def __init__(self, source: YamlSource, folder: Path, tools: Sequence[str] | None) -> None:
        self.problems: list[tuple[int, str]] = []
        self._source = source
        self._folder = folder
        self._tools = tools
        self._names: dict[str, int] = {}

    def read(self) -> CasesFile:
        file = cast(dict[str, Any], self._source.value)
        self._check_results(file, ())
        cases = tuple(self._read_case(case, ("cases", index), file) for index, case in enumerate(file["cases"]))
        return CasesFile(cases=cases, stub=file.get("stub", STUB), judge=file.get("judge"))

    def _read_case(self, case: dict[str, Any], path: Place, file: dict[str, Any]) -> Case:
        content = self._read_message(case["message"], (*path, "message"))
        message = text_of(content)
        name = str(case.get("name", message))
        if not name:
            self._fail(path, "a case without a text needs a name")
        line = self._source.places[path].line
        if (first := self._names.setdefault(name, line)) != line:
            self._fail(path, f"a case named {name!r} is there already, in line {first}; give it a name of its own")
        calls = case.get("calls")
        answer = case.get("answer")
        history: tuple[Message, ...] = ()
        try:
            history = read_history(case.get("history", ()))
        except ValueError as error:
            self._fail((*path, "history"), str(error))
        return Case(
            name=name,
            message=message,
            parts=() if isinstance(content, str) else content,
            user=case.get("user", file.get("user")),
            data={key: _as_text(value) for key, value in {**file.get("data", {}), **case.get("data", {})}.items()},
            history=history,
            calls=None if calls is None else tuple(self._read_calls(calls, (*path, "calls"))),
            more_calls=case.get("more_calls", False),
            answer=None if answer is None else self._read_answer(answer, (*path, "answer")),
            results={**file.get("results", {}), **self._check_results(case, path)},
        )

    def _read_message(self, given: str | list[Any], path: Place) -> str | tuple[Content, ...]:
        """Read a text, or parts; `{image: cat.png}` is a file beside the cases."""
        if isinstance(given, str):
            return given
        parts: list[Content] = []
        for index, part in enumerate(given):
            named = cast(dict[str, Any], part) if isinstance(part, dict) else {}
            word = next(iter(named), "")
            try:
                if word in _MEDIA and len(named) == 1:
                    parts.append(_MEDIA[word].load(self._folder / named[word]))
                else:
                    parts.extend(cast(tuple[Content, ...], read_content(cast(list[Any], [part]))))
            except OSError as error:
                self._fail((*path, index), f"{error.filename}: {error.strerror}")
            except (ValueError, KeyError, TypeError) as error:
                self._fail((*path, index), f"this is no part of a message: {error}")
        return tuple(parts)

    def _read_calls(self, calls: Sequence[dict[str, Any]], path: Place) -> Iterator[ExpectedCall]:
        for index, call in enumerate(calls):
            tools = _as_texts(call["tool"])
            for tool in tools:
                self._check_tool(tool, (*path, index, "tool"))
            yield ExpectedCall(tools, call.get("arguments", {}), call.get("only", False))

    def _check_results(self, holder: dict[str, Any], path: Place) -> Mapping[str, JSON]:
        results: dict[str, JSON] = holder.get("results", {})
        for tool in results:
            self._check_tool(tool, (*path, "results", tool), at_key=True)
        return results

    def _check_tool(self, name: str, path: Place, *, at_key: bool = False) -> None:
        if self._tools is not None and name not in self._tools:
            self._fail(path, f"there is no tool {name!r}; {suggest(name, self._tools)}", at_key=at_key)

    def _read_answer(self, answer: dict[str, Any], path: Place) -> AnswerCheck:
        if (regex := answer.get("regex")) is not None:
            try:
                re.compile(regex)
            except re.error as error:
                self._fail((*path, "regex"), f"{regex!r} isn't a regular expression: {error}")
        function: Check | None = None
        if (named := answer.get("function")) is not None:
            try:
                function = cast(Check, import_function(named, self._folder))
            except ConfigurationError as error:
                self._fail((*path, "function"), str(error))
        return AnswerCheck(
            exact=answer.get("exact"),
            contains=_as_texts(answer.get("contains", ())),
            contains_any=_as_texts(answer.get("contains_any", ())),
            lacks=_as_texts(answer.get("lacks", ())),
            regex=regex,
            function=function,
            judge=answer.get("judge"),
        )

    def _fail(self, path: Place, message: str, *, at_key: bool = False) -> None:
        place = self._source.places[path]
        self.problems.append((place.key_line if at_key else place.line, message))


def _as_texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _as_text(value: object) -> str:
    """Return a value for `open_data` in the form of a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def import_function(named: str, folder: Path) -> Callable[..., Any]:
    """Import the function at `module:function`, or at `file.py:function` in the folder."""
    where, colon, name = named.rpartition(":")
    if not colon or not where or not name:
        raise ConfigurationError(f"{named!r} isn't module:function or file.py:function")
    try:
        module = _import_file(folder / where) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # somebody's program: anything can be raised
        raise ConfigurationError(f"{where!r} doesn't import: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigurationError(f"{where!r} has no function {name!r}")
    return found


def _import_file(path: Path) -> Any:
    full = path.resolve()
    name = f"flowkit_checks_{full.stem}"
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None or not full.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

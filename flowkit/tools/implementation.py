"""The implementation of a `Tool`: its parameters, the parsing of its arguments, its call, and its result.

There are two kinds: a function with a signature (`functions`), and a handler with a JSON Schema (`foreign`).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from flowkit.context import Context
from flowkit.masking import SecretPlaces
from flowkit.tools.needs import Need
from flowkit.tools.schema.arguments import Arguments
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.docstrings import Documentation
from flowkit.tools.schema.results import ResultType
from flowkit.tools.schema.signatures import Parameter


class ArgumentReader(Protocol):
    """Reads the arguments of a tool; raises `ToolArgumentsError`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def is_plain(self) -> bool:
        """Return whether it reads only numbers, texts, lists and dicts, so that it runs no code of the tool's author."""
        ...

    def read(self, given: Mapping[str, object] | str | bytes) -> Arguments: ...
    def is_plainly_right(self, given: Mapping[str, object], ignored: Collection[str]) -> bool:
        """Return whether `check` would certainly find nothing; False means unknown."""
        ...

    def check(self, given: Mapping[str, object], ignored: Collection[str]) -> None:
        """Check like `read`, but ignore problems of the ignored arguments."""
        ...


class Callee(Protocol):
    """The implementation of a `Tool`: a function with a signature, or a handler with a schema."""

    name: str
    function: Callable[..., Any]
    visible: tuple[Parameter, ...]
    own_names: frozenset[str]
    needs: "tuple[Need[Any], ...]"
    results: ResultType
    is_async: bool
    takes_context: bool
    secrets: SecretPlaces
    takes_values: bool
    """Whether a call only passes the values to the function by name."""

    @property
    def documentation(self) -> Documentation:
        """The function's own docstring."""
        ...

    @property
    def parameter_descriptions(self) -> Mapping[str, str]:
        """Docstrings' texts on the parameters that a caller sees."""
        ...

    @property
    def schema(self) -> Schema:
        """The faithful schema of the arguments."""
        ...

    @property
    def own_checks(self) -> Mapping[str, tuple[str, ...]]:
        """The checks of each argument beyond the schema, by the functions' names."""
        ...

    def reader(self, given: frozenset[str]) -> ArgumentReader:
        """Return a reader of arguments as a caller writes them when these `Needs` parameters are given."""
        ...

    def invoke(self, arguments: Arguments, context: Context[Any] | None) -> Any:
        """Call the function; return its result or an awaitable of it."""
        ...

    def bind(self, receiver: object) -> "Callee":
        """Bind a method to its object."""
        ...

    def renamed(self, name: str) -> "Callee":
        """Copy under another name, which its errors use."""
        ...

    def name_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Bind the arguments of a Python call to their names."""
        ...

    def fill_direct_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fill in defaults that Python can't, in the arguments of a Python call."""
        ...

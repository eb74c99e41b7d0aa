"""`Tool`: a typed function as something that a model, a recipe or another tool can call."""

import inspect
import logging
from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, Concatenate, Generic, Protocol, Self, cast, overload

from typing_extensions import ParamSpec, TypeVar

from flowkit.codec import JSON, dump_sorted
from flowkit.context import Context
from flowkit.errors import ToolArgumentsError
from flowkit.identity import HERE
from flowkit.masking import SecretPlaces, show_traceback
from flowkit.notebook import Bundle, show_table
from flowkit.references import ToolCall, find_open
from flowkit.schema_words import read_properties, say_schema
from flowkit.suggestions import check_option_names
from flowkit.targets import lower, parse_target, to_wire
from flowkit.tools.closure import check_closure, find_effect, find_named_scope, find_needed_tools
from flowkit.tools.functions import FunctionCallee
from flowkit.tools.implementation import Callee
from flowkit.tools.keys import PROCESS_SECRET, NotKeyable, canonicalize, freeze, hash_secret, make_key
from flowkit.tools.lint import Finding, Lintable, lint
from flowkit.tools.lives import Life
from flowkit.tools.made_with import MadeWith, find_source, identify
from flowkit.tools.needs import Need, combine_approvals, find_calls
from flowkit.tools.options import POOL_SLOTS, READ_RETRIES, Approval, Effect, Options, PoolName, Scope, fill
from flowkit.tools.other_frameworks import ForeignTool, read_langchain, read_openai_agents, read_pydantic_ai
from flowkit.tools.places import check_place
from flowkit.tools.schema.aliases import make_alias
from flowkit.tools.schema.arguments import Arguments, parse_arguments
from flowkit.tools.schema.foreign import SchemaCallee, read_definition
from flowkit.tools.standalone import run_in_order

logger = logging.getLogger("flowkit.tools")

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class ToolLookup(Protocol):
    """Finds tools by name."""

    def get(self, name: str) -> "Tool[..., Any] | None": ...


class Tool(Generic[P, R_co]):
    """A function with its schema, its checks and its declared effects; callable like the function.

    Mistakes are reported when it is created; the schema, the docstring and the source are read on first use.
    """

    def __init__(
        self, callee: Callee, options: Options, *, is_method: bool = False, is_class_method: bool = False
    ) -> None:
        check_closure(callee, options)
        self.pool: PoolName | None = options.pool
        has_signature = isinstance(callee, FunctionCallee)
        self.place = check_place(callee, options, is_method=is_method, has_signature=has_signature)
        self.reader = callee.reader(frozenset())
        self.name = callee.name
        self.options = options
        self._callee = callee
        self._is_method = is_method
        self._is_class_method = is_class_method
        self._origin: object = object()
        self._receiver: object = None
        self.function = callee.function
        self.needs: tuple[Need[Tool[..., Any]], ...] = callee.needs
        self.visible = callee.visible
        self.own_names = callee.own_names
        self.is_async = callee.is_async
        self.takes_context = callee.takes_context
        self.takes_values = callee.takes_values
        needed = {need.seen_as(name) for need in self.needs for name in need.tool.secrets}
        self.results = callee.results
        self.secrets = SecretPlaces(callee.secrets.names | needed, lambda: callee.schema) if needed else callee.secrets
        self.needed_tools: Mapping[str, Tool[..., Any]] = find_needed_tools(self.name, self.needs)
        self.effect: Effect = find_effect(options, self.needs)
        self.declared_effect = options.claimed_effect is not None
        self.approval: Approval = combine_approvals(options.approval or False, self.needs)
        self.named_scope: Scope | None = find_named_scope(options, self.needs)
        self.uses_context = self.takes_context or any(need.tool.uses_context for need in self.needs)
        # A tool with a context and without a scope shares its results only within the run.
        self.scope: Scope = self.named_scope or ("run" if self.uses_context else "all")
        self.ttl_s = options.ttl_s
        self.timeout_s = options.timeout_s
        default_retries = READ_RETRIES if self.effect == "read" else 0
        self.retries = default_retries if options.retries is None else options.retries
        self.slot = POOL_SLOTS[options.pool] if options.slot is None and options.pool is not None else options.slot
        self.version = options.version
        self.accepts_references = options.accepts_references
        self.cache_errors = options.cache_errors
        self.probe = options.probe
        self.strict = options.strict
        self.max_result_chars = options.max_result_chars
        self.life: Life | None = None
        """The resources that have to be open in a run with this tool."""
        self.origin = ""
        """Where it comes from, such as the server that has it; empty for a function of the program."""
        self._look_like(callee.function)

    def _look_like(self, function: Callable[..., Any]) -> None:
        self.__name__ = self.name
        self.__doc__ = getattr(function, "__doc__", None)
        self.__module__ = getattr(function, "__module__", __name__)
        self.__qualname__ = getattr(function, "__qualname__", self.name)
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<tool {self.name}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show the tool's effects and parameters in a notebook."""
        rows = [("description", self.description), ("effect", self.effect), ("scope", self.scope), ("ttl", self.ttl_s)]
        parameters = read_properties(self.parameters).values()
        said = [(f"{one.name}{'' if one.is_required else '?'}", say_schema(one.schema)) for one in parameters]
        return show_table(f"tool {self.name}", [*rows, *said])

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function; raises an error if a parameter is missing that only a run can fill."""
        filled, named = self._callee.fill_direct_call(args, kwargs)
        return cast(R_co, self.function(*filled, **named))

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(self: "Tool[Concatenate[S, Q], T]", instance: S, owner: type | None = None, /) -> "Tool[Q, T]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        receiver: object = (owner or cast(Any, type(instance))) if self._is_class_method else instance
        return self if receiver is None or not self._is_method else self._bind(receiver)

    def _bind(self, receiver: object) -> "Tool[..., Any]":
        """Bind the tool to one object; needs that are methods of its class are bound with it."""
        bound = self._with(self._callee.bind(receiver))
        bound._receiver = receiver
        bound._is_method = False
        bound.function = bound._callee.function
        bound.needs = bound._callee.needs
        bound.needed_tools = find_needed_tools(self.name, bound.needs)
        return bound

    def renamed(self, name: str) -> Self:
        """Return the same tool under another name."""
        if self.name == name:
            return self
        renamed = self._with(self._callee.renamed(name))
        renamed.name = name
        return renamed

    def _with(self, callee: Callee) -> Self:
        """Copy this tool for another view of its function."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._callee, made.reader = callee, callee.reader(frozenset())
        for cached in ("_made_with", "_key_head"):
            made.__dict__.pop(cached, None)
        return made

    @property
    def is_unbound(self) -> bool:
        """Return whether it is an unbound method, which can't be called without an object."""
        return self._is_method and not self._is_class_method

    @property
    def identity(self) -> object:
        """Equal for two views of one tool: of one function, bound to one object."""
        return (id(self._origin), id(self._receiver))

    @cached_property
    def description(self) -> str:
        """The tool's purpose: the option, or the docstring without its lists."""
        said = self.options.description
        return self._callee.documentation.description if said is None else inspect.cleandoc(said)

    @property
    def parameter_descriptions(self) -> Mapping[str, str]:
        """The docstrings' texts on the parameters that a caller sees."""
        return self._callee.parameter_descriptions

    # Schemas are `Any` below their first level where users read or give them: a checker takes no index into `JSON`.

    @property
    def parameters(self) -> dict[str, Any]:
        """The faithful JSON Schema of the arguments."""
        return self._callee.schema

    @property
    def own_checks(self) -> Mapping[str, tuple[str, ...]]:
        """The checks of each argument beyond the schema, such as a validator, by the functions' names."""
        return self._callee.own_checks

    @property
    def result_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the result; None without a usable return annotation."""
        return self.results.schema

    @property
    def result_annotation(self) -> Any:
        """The return annotation."""
        return self.results.annotation

    def for_target(self, target: str = "openai-strict") -> dict[str, Any]:
        """Return the tool's definition as a request to this API carries it."""
        kind = parse_target(target)
        return to_wire(make_alias(self.name), self.description, lower(self.parameters, kind, strict=self.strict), kind)

    @property
    def has_signature(self) -> bool:
        """Return whether it was made from a function with a signature, not from a handler with a schema."""
        return isinstance(self._callee, FunctionCallee)

    def lint(self, target: str = "openai-strict") -> list[Finding]:
        """Report what this API would change or reject in the tool, and what the tool costs; the most serious first."""
        # The cast, because pyright takes no cached_property where a protocol asks for a property.
        return lint(cast(Lintable, self), parse_target(target))

    @classmethod
    def from_schema(
        cls,
        name: str,
        description: str,
        schema: Mapping[str, Any],
        handler: Callable[..., Any],
        *,
        result_schema: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> "Tool[..., Any]":
        """Make a tool from a JSON Schema, without a signature; `options` are those of `@tool`.

        The schema is of the draft that its `$schema` names, else of 2020-12.

        `handler` receives the arguments as one dict, checked by the schema and with its defaults; and the `Context`,
        if it takes one. `result_schema` describes the paths that references may use; results aren't checked by it.
        Raises `DefinitionError` for a schema that isn't valid, or isn't of an object.
        """
        check_option_names(options, Options, "a tool")
        chosen = Options(name=name, description=description, **options)
        chosen.check(name)
        return Tool(SchemaCallee(name, handler, schema, frozenset(chosen.secret), result_schema), chosen)

    @classmethod
    def from_openai(
        cls, definition: Mapping[str, Any], handler: Callable[..., Any], **options: Any
    ) -> "Tool[..., Any]":
        """Make a tool from a definition as it appears in a request: nested under `function`, or flat."""
        wire = read_definition(definition)
        return cls.from_schema(
            wire.name, wire.description, wire.parameters, handler, **cast(Any, {"strict": wire.strict} | options)
        )

    @classmethod
    def from_pydantic_ai(cls, tool: object, **options: Any) -> "Tool[..., Any]":
        """Take over a `pydantic_ai.Tool`; `options` are those of `@tool`, such as `effect="read"`."""
        return cls._from_foreign(read_pydantic_ai(tool, options), options)

    @classmethod
    def from_langchain(cls, tool: object, **options: Any) -> "Tool[..., Any]":
        """Take over a tool of `langchain_core`; `options` are those of `@tool`, such as `effect="read"`."""
        return cls._from_foreign(read_langchain(tool, options), options)

    @classmethod
    def from_openai_agents(cls, tool: object, **options: Any) -> "Tool[..., Any]":
        """Take over a `FunctionTool` of the OpenAI Agents SDK; `options` are those of `@tool`."""
        return cls._from_foreign(read_openai_agents(tool, options), options)

    @classmethod
    def _from_foreign(cls, read: ForeignTool, options: dict[str, Any]) -> "Tool[..., Any]":
        given: dict[str, Any] = {"description": read.description, **read.options, **options}
        name, description = given.pop("name", read.name), given.pop("description")
        return cls.from_schema(name, description, read.schema, read.handler, result_schema=read.result_schema, **given)

    def validate(
        self, arguments: Mapping[str, object] | str | bytes, needed: Mapping[str, object] | None = None
    ) -> Arguments:
        """Read the function's values from JSON; `needed` holds the values of its `Needs` parameters.

        Without `needed` the arguments are those that a caller sees, including the parameters of its needs. Raises
        `ToolArgumentsError`.
        """
        try:
            if not needed:
                return self.reader.read(arguments)
            is_text = isinstance(arguments, (str, bytes))
            given = parse_arguments(self.name, arguments, []) if is_text else arguments
            return self._callee.reader(frozenset(needed)).read({**given, **needed})
        except ToolArgumentsError:
            raise
        except Exception as error:  # a validator of the author's may raise anything
            raise self._report(error, arguments) from error

    def check(self, arguments: Mapping[str, object], open_names: Collection[str] | None = None) -> None:
        """Validate the arguments that hold no reference; raises `ToolArgumentsError`.

        `open_names` are the arguments known to hold one, if the caller has looked already.
        """
        if open_names is None:
            _, open_names = find_open(arguments)
        reader = self.reader
        if self.needs:
            reader = self._callee.reader(frozenset([n.parameter for n in self.needs if n.parameter in open_names]))
        if reader.is_plainly_right(arguments, open_names):
            return
        given = dict(arguments)
        ignored: list[str] = []
        for name in open_names:
            # A reference under an unknown name stays in, to be refused by that name.
            if name in reader.names:
                del given[name]
                ignored.append(name)
        try:
            reader.check(given, ignored)
        except ToolArgumentsError:
            raise
        except Exception as error:  # as above; a helper around both would cost each call a twentieth of its validation
            raise self._report(error, arguments) from error

    def _report(self, error: Exception, arguments: Mapping[str, object] | str | bytes) -> ToolArgumentsError:
        """Report a mistake in a validator: the model reads that its call was rejected, the log has the rest."""
        given = parse_arguments(self.name, arguments, []) if isinstance(arguments, (str, bytes)) else arguments
        told = show_traceback(error, self.secrets.find(given))
        logger.error("a validator of tool %s failed\n%s", self.name, told, extra={"tool": self.name})
        return ToolArgumentsError(self.name, [f"a check of its own failed: {type(error).__name__}"])

    def call(self, *args: Any, **kwargs: Any) -> ToolCall:
        """Create a `ToolCall` without running it, for `prefetch=` or a graph. Values may be, or hold, `Reference`.

        Raises `ToolArgumentsError` for arguments that the tool doesn't take.
        """
        arguments = self._callee.name_arguments(args, kwargs)
        self.check(arguments)
        return ToolCall("", self.name, arguments)

    def expand(self, call: ToolCall) -> tuple[ToolCall, ...]:
        """Return the calls that it needs, then the call itself with references to them; a call without needs stays."""
        return find_calls(self, call) if self.needs else (call,)

    def invoke(self, arguments: Arguments, context: Context[Any] | None = None) -> Any:
        """Call the function: a result, or the coroutine of an async tool. A sync one runs in the caller's thread."""
        return self._callee.invoke(arguments, context)

    @overload
    async def run(
        self: "Tool[..., Coroutine[Any, Any, T]]",
        arguments: Mapping[str, object] | str = "",
        *,
        context: Context[Any] | None = None,
    ) -> T: ...
    @overload
    async def run(
        self: "Tool[..., T]", arguments: Mapping[str, object] | str = "", *, context: Context[Any] | None = None
    ) -> T: ...
    async def run(self, arguments: Mapping[str, object] | str = "", *, context: Context[Any] | None = None) -> Any:
        """Validate and call, its needs first, in sequence; returns the function's own result.

        Raises `ToolArgumentsError`, and the functions' own exceptions.
        """
        read = self.validate(arguments)
        if self.is_async and not self.uses_context and not self.needs:
            return await self._callee.invoke(read, None)
        return await run_in_order(self, read, Context[Any](None) if context is None else context)

    def dump(self, result: object) -> JSON:
        """Convert the result to JSON by the return type; raises `ToolResultError` naming a type that has no JSON."""
        return self.results.dump(self.name, result)

    def load(self, value: JSON) -> Any:
        """Read a result stored as JSON, as the tool's own type if its annotation is known."""
        return self.results.load(value)

    def key(
        self,
        arguments: Arguments,
        scope_id: str,
        generations: Sequence[int] = (),
        *,
        secret_key: bytes = PROCESS_SECRET,
    ) -> str | None:
        """Make the cache key of a call; None if a value has no canonical form, so the result can't be shared.

        Calls have equal keys only if tool, code or version, scope, values and resources' generations are equal. The key
        starts with `HERE` if only this process can identify the tool.
        """
        try:
            values = {name: canonicalize(value, secret_key) for name, value in arguments.values.items()}
            if self.secrets:
                values = {
                    # Every argument, since one where none belongs may repeat a secret.
                    name: hash_secret(dump_sorted(form), secret_key)
                    for name, form in values.items()
                }
        except (NotKeyable, RecursionError):
            return None
        key = make_key(["flowkit-3", self._key_head, scope_id, values, [*generations]])
        return key if self._made_with.is_durable else HERE + key

    def process_key(self, arguments: Arguments, scope_id: str, generations: Sequence[int] = ()) -> Hashable | None:
        """Make a key for sharing within this process: for plain values it is a tuple, so nothing is hashed."""
        try:
            # Flat, so that the garbage collector has one tuple less to look at for each argument.
            values = [part for name, value in sorted(arguments.values.items()) for part in (name, freeze(value))]
        except (NotKeyable, RecursionError):
            return self.key(arguments, scope_id, generations)
        return (self._key_head, scope_id, *values, *generations)

    @cached_property
    def _source(self) -> str:
        return find_source(self.function)

    @cached_property
    def _key_head(self) -> str:
        """The part of a key that is the same for all calls."""
        return make_key([self.name, self.code_parts, self.scope, self._made_with.parts])

    @property
    def code_parts(self) -> JSON:
        """The part of a key that identifies the code: the version, or a hash of the source."""
        said = ["source", self._source] if self.version is None else ["version", self.version]
        return [self.name, *said]

    @cached_property
    def _made_with(self) -> MadeWith:
        annotations = [parameter.annotation for parameter in self.visible]
        return identify(
            self.function,
            annotations=annotations,
            is_versioned=self.version is not None,
            has_signature=self.has_signature,
        )

    def code(self) -> str:
        """Identify this code: the version, or a hash of the source, of the tool and of all that it needs."""
        parts = [self.name, self.version or self._source, self.effect, *(need.tool.code() for need in self.needs)]
        return make_key(list(parts))[:16]

    def resources(self, arguments: Arguments | Mapping[str, object]) -> tuple[str, ...]:
        """List the resources of a call; a None, secret or unknown placeholder stands for its family: `order:*`."""
        values = arguments.values if isinstance(arguments, Arguments) else arguments
        return tuple(fill(template, values, self.secrets) for template in self.options.resources)

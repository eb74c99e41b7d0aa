"""Annotations as pydantic can take them, with every value coming back in the type that was written.

Some types need help: the standard library's TypedDict (pydantic refuses it before Python 3.12), NamedTuple (pydantic
makes an array of it; models and strict APIs want an object with names), bytes (JSON text can't hold all of them, so
they travel as base64), Literal and enums whose values JSON spells otherwise, attrs classes, and tuples with an unpacked
part. `adapt` walks an annotation and puts a form of ours in their place; the function still gets what it wrote.
"""

import dataclasses
import re
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Mapping, Sequence
from types import GenericAlias, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    LiteralString,
    Never,
    NewType,
    NotRequired,
    Required,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import (
    BeforeValidator,
    EncodedBytes,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
)
from pydantic.functional_validators import AfterValidator
from typing_extensions import (
    NoDefault,
    NoExtraItems,
    ReadOnly,
    TypeAliasType,
    TypedDict,
    get_type_hints,
    is_typeddict,
)

from flowkit.tools.schema.type_forms import (
    BASE64,
    BYTE_ARRAY,
    Repeating,
    is_enum,
    is_unpacked,
    make_enum_readable,
    make_literal_exact,
    splice,
)

_PLAIN = (str, int, float, bool, NoneType)
_STAND_INS: Mapping[Any, Any] = {
    **{kind: kind for kind in _PLAIN},  # stand for themselves: nearly all annotations end in these
    bytes: BASE64,
    bytearray: BYTE_ARRAY,
    LiteralString: str,
}


def is_named_tuple(annotation: object) -> bool:
    """Return whether it is a class made by `NamedTuple` or `namedtuple`."""
    return isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(cast(Any, annotation), "_fields")


def read_typed_dict(cls: Any) -> tuple[dict[str, Any], set[str]]:
    """Read the types of a TypedDict's keys, without their qualifiers, and the keys that are required."""
    hints = get_type_hints(cls, include_extras=True)
    required = {name for name, hint in hints.items() if _is_required(hint, name in cls.__required_keys__)}
    return {name: _strip_qualifiers(hint) for name, hint in hints.items()}, required


def new_typed_dict(name: str, **options: Any) -> Any:
    """Make a TypedDict whose fields are set afterwards; type checkers know only those that are written out."""
    return cast(Any, TypedDict)(name, {}, **options)


class Adapter:
    """Converts annotations to a form that pydantic accepts; use one adapter for all annotations of a schema.

    `forms` lets a type that holds itself, or stands in two parameters, meet its own form.
    """

    def __init__(self) -> None:
        self.forms: dict[Any, Any] = {}

    def adapt(self, annotation: Any, variables: Mapping[Any, Any] | None = None) -> Any:
        """Adapt the annotation for pydantic; one that needs no help is returned as it is."""
        if annotation in _STAND_INS:
            return _STAND_INS[annotation]
        if isinstance(annotation, TypeVar) or annotation is Self:
            return self._adapt_variable(annotation, variables or {})
        if isinstance(annotation, NewType):
            # pydantic looks through it too, but at what it was made of, not at our form of that.
            return self._adapt_unless_same(annotation, annotation.__supertype__)
        if isinstance(annotation, TypeAliasType):
            return self._adapt_alias(annotation)
        origin = get_origin(annotation)
        arguments = get_args(annotation)
        if origin is re.Pattern and arguments == (bytes,):
            raise TypeError("JSON can't hold a pattern of bytes; take Pattern[str]")
        if (origin or annotation) in (Generator, AsyncGenerator):
            raise TypeError("JSON can't hold a generator; take Iterable or list")
        if (origin or annotation) in (Iterable, Collection):
            # pydantic would check the items of the first only when the function asks for them, and take no Collection.
            return self.adapt(list[arguments] if arguments else list, variables)
        if origin is None:
            return self._adapt_class(annotation, annotation, variables)
        if origin is Annotated:
            return self._adapt_annotated(annotation, arguments, variables)
        if origin is Literal:
            return make_literal_exact(annotation)
        if is_named_tuple(origin) or is_typeddict(origin):
            given = [self._adapt_argument(argument, variables) for argument in arguments]
            bound = dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
            return self._adapt_class(origin, annotation, bound)
        if origin is tuple and any(map(is_unpacked, arguments)):
            return self._adapt_unpacked(arguments, variables)
        adapted = tuple(self._adapt_argument(argument, variables) for argument in arguments)
        if _is_mapping(origin) and get_origin(arguments[0]) is Literal:
            adapted = (make_literal_exact(arguments[0], is_key=True), *adapted[1:])
        if all(new is old for new, old in zip(adapted, arguments, strict=True)):
            return annotation
        if origin is Union or origin is UnionType:
            return Union[adapted]  # noqa: UP007  # made from a tuple
        if isinstance(annotation, GenericAlias):
            return GenericAlias(origin, adapted)
        return annotation.copy_with(adapted) if hasattr(annotation, "copy_with") else cast(Any, origin)[adapted]

    def _adapt_annotated(self, annotation: Any, arguments: Sequence[Any], variables: Mapping[Any, Any] | None) -> Any:
        inner, *metadata = arguments
        if inner is bytes and any(isinstance(item, EncodedBytes) for item in metadata):
            return annotation  # pydantic's own Base64Bytes
        adapted = self.adapt(inner, variables)
        if adapted is inner and not any(isinstance(item, str) for item in metadata):
            return annotation
        # A bare text is a description; a `Field` behind it may say otherwise.
        fields = [Field(description=item) if isinstance(item, str) else item for item in metadata]
        return Annotated[(adapted, *fields)]

    def _adapt_argument(self, argument: Any, variables: Mapping[Any, Any] | None) -> Any:
        # Literal's values and Callable's lists aren't annotations.
        return self.adapt(argument, variables) if _is_annotation(argument) else argument

    def _adapt_variable(self, variable: Any, bound: Mapping[Any, Any]) -> Any:
        """Adapt a type variable: to its argument, its default, its bound, or the union of its constraints."""
        if variable in bound:
            return bound[variable]
        if variable is Self:
            raise TypeError("Self is known in a class's own fields alone; write the name of the class")
        default = getattr(variable, "__default__", NoDefault)
        choices = (variable.__bound__,) if variable.__bound__ is not None else variable.__constraints__
        if default not in (NoDefault, None):
            choices = (default,)
        adapted = tuple(self._adapt_argument(choice, bound) for choice in choices)
        if all(new is old for new, old in zip(adapted, choices, strict=True)):
            return variable
        return Union[adapted]  # noqa: UP007  # made from a tuple

    def _adapt_unless_same(self, annotation: Any, inner: Any) -> Any:
        adapted = self._adapt_argument(inner, None)
        return annotation if adapted is inner else adapted

    def _adapt_alias(self, alias: TypeAliasType) -> Any:
        if alias not in self.forms:
            self.forms[alias] = alias  # one that holds itself is left to pydantic
            self.forms[alias] = self._adapt_unless_same(alias, alias.__value__)
        return self.forms[alias]

    def _adapt_unpacked(self, arguments: Iterable[Any], variables: Mapping[Any, Any] | None) -> Any:
        """Adapt `tuple[int, *tuple[str, ...]]`: a fixed part in it is spliced in, and one may repeat."""
        items, repeated = splice(arguments)
        adapted = [self._adapt_argument(item, variables) for item in items]
        return tuple[tuple(adapted)] if repeated is None else Annotated[tuple[Any, ...], Repeating(adapted, repeated)]

    def _adapt_class(self, cls: Any, key: Any, variables: Mapping[Any, Any] | None) -> Any:
        if key in self.forms:
            return self.forms[key]
        if is_named_tuple(cls):
            return self._adapt_named_tuple(cls, key, variables)
        if is_typeddict(cls):
            return self._adapt_typed_dict(cls, key, variables)
        if _is_plain_dataclass(cls):
            return self._adapt_dataclass(cls)
        if _is_attrs(cls):
            return self._adapt_attrs(cls)
        if is_enum(cls):
            return make_enum_readable(cls)
        return cls

    def _adapt_named_tuple(self, cls: Any, key: Any, variables: Mapping[Any, Any] | None) -> Any:
        hints = get_type_hints(cls, include_extras=True)
        defaults: dict[str, Any] = cls._field_defaults
        form: Any = new_typed_dict(cls.__name__)
        form.__module__, form.__doc__ = cls.__module__, None
        names: tuple[str, ...] = cls._fields

        def as_names(value: object) -> object:
            if isinstance(value, cls):
                return cast(Any, value)._asdict()
            if isinstance(value, (list, tuple)):
                items = cast(list[object], value)
                # One too many must not be dropped without a word: the name says where it stood.
                return dict(zip((*names, *map(str, range(len(names), len(items)))), items, strict=False))
            return value

        def as_tuple(values: dict[str, Any]) -> Any:
            return cls(**values)

        # Without a return type: pydantic would take that for the schema of the JSON, and Any says nothing.
        def as_object(value: Any, handler: SerializerFunctionWrapHandler):
            return handler(value._asdict())

        adapted = Annotated[form, BeforeValidator(as_names), AfterValidator(as_tuple), WrapSerializer(as_object)]
        self.forms[key] = adapted
        variables = {**(variables or {}), Self: adapted}
        fields = {name: self.adapt(hints.get(name, Any), variables) for name in names}
        for name, default in defaults.items():
            fields[name] = Annotated[fields[name], Field(default=default)]
        _fill_form(form, fields, required={name for name in names if name not in defaults}, closed=True)
        return adapted

    def _adapt_dataclass(self, cls: Any) -> Any:
        """Adapt a dataclass if one of its fields needs it; otherwise leave it to pydantic."""
        declared = [_Field(f.name, f.name, _default_of(f)) for f in dataclasses.fields(cls)]
        return self._adapt_record(cls, declared, is_taken=True)

    def _adapt_attrs(self, cls: Any) -> Any:
        """Adapt a class that attrs has made, which pydantic doesn't know; its private fields lose their underscore."""
        declared = [_Field(f.name, f.alias, _attrs_default(f.default)) for f in cls.__attrs_attrs__ if f.init]
        return self._adapt_record(cls, declared, is_taken=False)

    def _adapt_record(self, cls: Any, declared: "Sequence[_Field]", *, is_taken: bool) -> Any:
        """Adapt a class of declared fields by a form of them; one that pydantic takes as it is, only where it has to."""
        try:
            hints = get_type_hints(cls, include_extras=True)
        except NameError:
            return cls
        form: Any = new_typed_dict(cls.__name__)
        form.__module__ = cls.__module__
        # What `dataclass` writes by itself is the signature, which says nothing new.
        form.__doc__ = None if str(cls.__doc__).startswith(f"{cls.__name__}(") else cls.__doc__

        def as_names(value: object) -> object:
            return {f.key: getattr(value, f.name) for f in declared} if isinstance(value, cls) else value

        def as_instance(values: dict[str, Any]) -> Any:
            return cls(**values)

        # Without a return type, as above.
        def as_object(value: Any, handler: SerializerFunctionWrapHandler):
            return handler(as_names(value))

        adapted = Annotated[form, BeforeValidator(as_names), AfterValidator(as_instance), WrapSerializer(as_object)]
        self.forms[cls] = adapted
        hints = {f.key: _strip_final(hints.get(f.name, Any)) for f in declared}
        fields = {key: self.adapt(hint, {Self: adapted}) for key, hint in hints.items()}
        if is_taken and all(fields[key] is hint for key, hint in hints.items()):
            self.forms[cls] = cls
            return cls
        required = {f.key for f in declared if f.default is None}
        for f in declared:
            if f.default is not None:
                fields[f.key] = Annotated[fields[f.key], f.default]
        _fill_form(form, fields, required=required, closed=False)
        return adapted

    def _adapt_typed_dict(self, cls: Any, key: Any, variables: Mapping[Any, Any] | None) -> Any:
        is_standard = type(cls).__module__ == "typing"
        hints, required = read_typed_dict(cls)
        form: Any = new_typed_dict(cls.__name__)
        form.__module__, form.__doc__ = cls.__module__, cls.__doc__
        self.forms[key] = form
        variables = {**(variables or {}), Self: form}
        fields = {name: self.adapt(hint, variables) for name, hint in hints.items()}
        extra, is_closed = _find_extra(cls)
        # pydantic warns of ReadOnly, which says nothing of JSON.
        is_read_only = any(map(_is_read_only, get_type_hints(cls, include_extras=True).values()))
        is_taken = not (is_standard or is_read_only or is_closed or extra is not NoExtraItems)
        if is_taken and all(fields[name] is hint for name, hint in hints.items()):
            self.forms[key] = key
            return key
        _fill_form(form, fields, required=required, closed=is_closed)
        config: dict[str, Any] | None = getattr(cls, "__pydantic_config__", None)
        if extra is not NoExtraItems:
            form.__extra_items__, form.__closed__ = self.adapt(extra, variables), None
            # Not what it would take over from the arguments around it, which forbid others.
            config = {**(config or {}), "extra": "allow"}
        if config is not None:
            form.__pydantic_config__ = config
        return form


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """A field of a class: the attribute's name, the constructor's name of it, and its default if it has one."""

    name: str
    key: str
    default: Any = None


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return None if field.default is dataclasses.MISSING else Field(default=field.default)


def _attrs_default(default: Any) -> Any:
    match type(default).__name__:  # attrs itself is never imported here
        case "_Nothing":
            return None
        case "Factory" if default.takes_self:
            raise TypeError("a default of an attrs class that is made from the instance can't be told beforehand")
        case "Factory":
            return Field(default_factory=default.factory)
        case _:
            return Field(default=default)


def _is_attrs(cls: Any) -> bool:
    return (
        isinstance(cls, type) and hasattr(cls, "__attrs_attrs__") and not hasattr(cls, "__get_pydantic_core_schema__")
    )


def _find_extra(cls: Any) -> tuple[Any, bool]:
    """Find the type of the keys that a TypedDict doesn't name (PEP 728), and whether it takes none."""
    extra = _strip_qualifiers(getattr(cls, "__extra_items__", NoExtraItems))
    is_closed = bool(getattr(cls, "__closed__", None)) or extra is Never
    return (NoExtraItems if is_closed else extra), is_closed


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_plain_dataclass(cls: Any) -> bool:
    """Return whether it is a standard dataclass whose fields are all arguments, without settings for pydantic."""
    return (
        isinstance(cls, type)
        and dataclasses.is_dataclass(cls)
        and not hasattr(cls, "__pydantic_config__")
        and not hasattr(cls, "__get_pydantic_core_schema__")
        and "__pydantic_validator__" not in cls.__dict__
        and all(field.init for field in dataclasses.fields(cls))
        and not any(isinstance(hint, dataclasses.InitVar) for hint in cls.__annotations__.values())
    )


def _fill_form(form: Any, fields: Mapping[str, Any], *, required: set[str], closed: bool) -> None:
    # The class exists before its fields do, so that they can hold it; that is why they are set here by hand.
    form.__annotations__ = {
        name: Required[annotation] if name in required else NotRequired[annotation]
        for name, annotation in fields.items()
    }
    form.__required_keys__ = frozenset(required)
    form.__optional_keys__ = frozenset(fields) - required
    if closed:
        form.__pydantic_config__ = {"extra": "forbid"}


def _strip_final(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Final else annotation


def _strip_qualifiers(annotation: Any) -> Any:
    while get_origin(annotation) in (Required, NotRequired, ReadOnly):
        annotation = get_args(annotation)[0]
    return annotation


def _is_read_only(annotation: Any) -> bool:
    while (origin := get_origin(annotation)) in (Required, NotRequired):
        annotation = get_args(annotation)[0]
    return origin is ReadOnly


def _is_required(annotation: Any, default: bool) -> bool:
    # Under `from __future__ import annotations` the class itself can't see the qualifiers, which are text then.
    while (origin := get_origin(annotation)) in (Required, NotRequired, ReadOnly):
        if origin is not ReadOnly:
            return origin is Required
        annotation = get_args(annotation)[0]
    return default


def _is_annotation(value: Any) -> bool:
    return (
        isinstance(value, (type, TypeVar, NewType, TypeAliasType))
        or get_origin(value) is not None
        or value is LiteralString
        or value is Self
    )

"""Annotations as pydantic can take them, with every value coming back in the type that was written.

Some types need help: the standard library's TypedDict (pydantic refuses it before Python 3.12), NamedTuple (pydantic
makes an array of it; models and strict APIs want an object with names), bytes (JSON text can't hold all of them, so
they travel as base64), Literal and enums whose values JSON spells otherwise. `adapt` walks an annotation and puts a form
of ours in their place; a NamedTuple still reaches the function as itself.
"""

import base64
import binascii
import dataclasses
import enum
from collections.abc import Collection, Iterable, Mapping
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, TypeVar, Union, cast, get_args, get_origin

from pydantic import (
    BeforeValidator,
    EncodedBytes,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    WrapSerializer,
)
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError, PydanticSerializationError, to_jsonable_python
from typing_extensions import ReadOnly, TypedDict, get_type_hints, is_typeddict

from flowkit.codec import dump_sorted

BASE64_SCHEMA = {"type": "string", "contentEncoding": "base64"}


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
    """Puts annotations in the form that pydantic takes; use one for all that end in one schema.

    `forms` lets a type that holds itself, or stands in two parameters, meet its own form.
    """

    def __init__(self) -> None:
        self.forms: dict[Any, Any] = {}

    def adapt(self, annotation: Any, variables: Mapping[Any, Any] | None = None) -> Any:
        """Adapt the annotation for pydantic; one that needs no help is returned as it is."""
        if isinstance(annotation, TypeVar):
            return (variables or {}).get(annotation, annotation)
        if annotation is bytes:
            return _BASE64
        origin = get_origin(annotation)
        arguments = get_args(annotation)
        if (origin or annotation) in (Iterable, Collection):
            # pydantic would check the items of the first only when the function asks for them, and take no Collection.
            return self.adapt(list[arguments] if arguments else list, variables)
        if origin is None:
            return self._adapt_class(annotation, annotation, variables)
        if origin is Annotated and arguments[0] is bytes and any(isinstance(i, EncodedBytes) for i in arguments[1:]):
            return annotation  # pydantic's own Base64Bytes
        if origin is Annotated:
            inner = self.adapt(arguments[0], variables)
            # A bare text is a description; a `Field` behind it may say otherwise.
            metadata = tuple(Field(description=item) if isinstance(item, str) else item for item in arguments[1:])
            return Annotated[(inner, *metadata)]
        if origin is Literal:
            return _exact_literal(annotation)
        if is_named_tuple(origin) or is_typeddict(origin):
            bound = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
            return self._adapt_class(origin, annotation, bound)
        adapted = tuple(self._adapt_argument(argument, variables) for argument in arguments)
        if all(new is old for new, old in zip(adapted, arguments, strict=True)):
            return annotation
        if origin is Union or origin is UnionType:
            return Union[adapted]  # noqa: UP007  # made from a tuple
        if isinstance(annotation, GenericAlias):
            return GenericAlias(origin, adapted)
        return annotation.copy_with(adapted) if hasattr(annotation, "copy_with") else origin[adapted]

    def _adapt_argument(self, argument: Any, variables: Mapping[Any, Any] | None) -> Any:
        # Literal's values and Callable's lists aren't annotations.
        return self.adapt(argument, variables) if _is_annotation(argument) else argument

    def _adapt_class(self, cls: Any, key: Any, variables: Mapping[Any, Any] | None) -> Any:
        if key in self.forms:
            return self.forms[key]
        if is_named_tuple(cls):
            return self._adapt_named_tuple(cls, key, variables)
        if is_typeddict(cls):
            return self._adapt_typed_dict(cls, key, variables)
        if _is_plain_dataclass(cls):
            return self._adapt_dataclass(cls)
        if _is_enum(cls):
            return _readable_enum(cls)
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
        fields = {name: self.adapt(hints.get(name, Any), variables) for name in names}
        for name, default in defaults.items():
            fields[name] = Annotated[fields[name], Field(default=default)]
        _fill_form(form, fields, required={name for name in names if name not in defaults}, closed=True)
        return adapted

    def _adapt_dataclass(self, cls: Any) -> Any:
        """Adapt a dataclass for what it holds; pydantic itself takes one that holds nothing to adapt."""
        try:
            hints = get_type_hints(cls, include_extras=True)
        except NameError:
            return cls
        form: Any = new_typed_dict(cls.__name__)
        form.__module__ = cls.__module__
        # What `dataclass` writes by itself is the signature, which says nothing new.
        form.__doc__ = None if str(cls.__doc__).startswith(f"{cls.__name__}(") else cls.__doc__
        declared = dataclasses.fields(cls)

        def as_names(value: object) -> object:
            return {f.name: getattr(value, f.name) for f in declared} if isinstance(value, cls) else value

        def as_instance(values: dict[str, Any]) -> Any:
            return cls(**values)

        # Without a return type, as above.
        def as_object(value: Any, handler: SerializerFunctionWrapHandler):
            return handler(as_names(value))

        adapted = Annotated[form, BeforeValidator(as_names), AfterValidator(as_instance), WrapSerializer(as_object)]
        self.forms[cls] = adapted
        fields = {f.name: self.adapt(hints[f.name]) for f in declared}
        if all(fields[name] is hints[name] for name in fields):
            self.forms[cls] = cls
            return cls
        required: set[str] = set()
        for f in declared:
            if f.default_factory is not dataclasses.MISSING:
                fields[f.name] = Annotated[fields[f.name], Field(default_factory=f.default_factory)]
            elif f.default is not dataclasses.MISSING:
                fields[f.name] = Annotated[fields[f.name], Field(default=f.default)]
            else:
                required.add(f.name)
        _fill_form(form, fields, required=required, closed=False)
        return adapted

    def _adapt_typed_dict(self, cls: Any, key: Any, variables: Mapping[Any, Any] | None) -> Any:
        is_standard = type(cls).__module__ == "typing"
        hints, required = read_typed_dict(cls)
        form: Any = new_typed_dict(cls.__name__)
        form.__module__, form.__doc__ = cls.__module__, cls.__doc__
        self.forms[key] = form
        fields = {name: self.adapt(hint, variables) for name, hint in hints.items()}
        # pydantic warns of ReadOnly, which says nothing of JSON.
        is_taken = not is_standard and not any(map(_is_read_only, get_type_hints(cls, include_extras=True).values()))
        if is_taken and all(fields[name] is hint for name, hint in hints.items()):
            self.forms[key] = key
            return key
        _fill_form(form, fields, required=required, closed=False)
        config = getattr(cls, "__pydantic_config__", None)
        if config is not None:
            form.__pydantic_config__ = config
        return form


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


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def _readable_enum(cls: type[enum.Enum]) -> Any:
    """Return the enum, read also by the JSON form of values that aren't JSON themselves, such as tuples and dates."""
    if all(isinstance(member.value, (str, int, float, NoneType)) for member in cls):
        return cls
    try:
        members = {dump_sorted(to_jsonable_python(member.value)): member for member in cls}
    except (PydanticSerializationError, TypeError, ValueError):
        return cls

    def find_member(value: object) -> object:
        try:
            return members.get(dump_sorted(value), value)
        except (TypeError, ValueError):
            return value

    return Annotated[cls, BeforeValidator(find_member)]


def _exact_literal(annotation: Any) -> Any:
    """Return the literal with 1, 1.0 and True kept apart, which Python and pydantic take as equal; enums by value."""
    values = get_args(annotation)
    if all(type(value) in (str, bytes, NoneType) for value in values):
        return annotation
    in_json = [to_jsonable_python(value) for value in values]
    known = {dump_sorted(form): value for form, value in zip(in_json, values, strict=True)}
    *most, last = map(repr, in_json)
    expected = f"{', '.join(most)} or {last}" if most else last

    def find_value(value: object) -> object:
        if isinstance(value, (enum.Enum, bytes)):
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            return known[dump_sorted(value)]
        except (KeyError, TypeError, ValueError):
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected}) from None

    return Annotated[annotation, BeforeValidator(find_value)]


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
    return isinstance(value, (type, TypeVar)) or get_origin(value) is not None


def _read_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


def _write_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


_BASE64 = Annotated[
    bytes,
    BeforeValidator(_read_base64),
    PlainSerializer(_write_base64, return_type=str, when_used="json"),
    WithJsonSchema(BASE64_SCHEMA),
]

"""Which types hold secrets: quickly, from annotations alone, before any schema is made."""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

_SECRETS = (Secret, SecretStr, SecretBytes)
_PLAIN = frozenset((str, int, float, bool, bytes, type(None)))
_BOXES = (list, dict, tuple, set, frozenset, Union, UnionType, Annotated)
"""What holds values of the types that it is annotated with, and nothing else."""


def holds_secret(annotation: Any) -> bool:
    """Return whether a value of this type is, or directly holds, a secret."""
    if _is_plain(annotation):
        return False
    kind = get_origin(annotation) or annotation
    if inspect.isclass(kind) and issubclass(kind, _SECRETS):
        return True
    return any(holds_secret(part) for part in get_args(annotation))


def may_hold_secret(annotation: Any) -> bool:
    """Return whether a value of this type may hold a secret at any depth; a type that can't be looked into may."""
    return _may_hold(annotation, set())


def _may_hold(annotation: Any, entered: set[int]) -> bool:
    if _is_plain(annotation) or id(annotation) in entered:
        return False
    entered.add(id(annotation))
    if isinstance(annotation, FieldInfo):
        return annotation.json_schema_extra is not None
    origin = get_origin(annotation)
    if origin is Literal:
        return False
    kind = origin or annotation
    if origin is not None and any(_may_hold(part, entered) for part in get_args(annotation)):
        return True
    try:
        if kind in _BOXES:
            return False
        if inspect.isclass(kind) and issubclass(kind, _SECRETS):
            return True
        return any(_may_hold(part, entered) for part in _list_parts(kind))
    except Exception:  # noqa: BLE001  # annotations are anybody's code; what can't be read here, the schema tells
        return True


def _is_plain(annotation: Any) -> bool:
    return annotation is Any or (type(annotation) is type and annotation in _PLAIN)


def _list_parts(kind: Any) -> Iterator[Any]:
    if not inspect.isclass(kind):
        for inner in ("__value__", "__supertype__", "__bound__", "__default__"):  # `type Pair = ...`, NewType, TypeVar
            if (named := getattr(kind, inner, None)) is not None:
                yield named
        yield from getattr(kind, "__constraints__", ())
        if getattr(kind, "json_schema", None) is not None or hasattr(kind, "json_schema_extra"):
            yield SecretStr  # metadata that writes the schema itself may write anything
        return
    if issubclass(kind, BaseModel):
        for field in kind.model_fields.values():
            yield field.annotation
            yield from field.metadata
            if field.json_schema_extra is not None:
                yield SecretStr
        if kind.model_config.get("json_schema_extra") is not None:
            yield SecretStr
        if kind.model_config.get("extra") == "allow":
            for part in _list_bases(kind):
                extra = vars(part).get("__annotations__", {}).get("__pydantic_extra__")
                yield SecretStr if isinstance(extra, str) else extra  # an annotation as text may name anything
    elif is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        yield from (hints[field.name] for field in fields(kind))
    elif hasattr(kind, "__attrs_attrs__"):
        hints = get_type_hints(kind, include_extras=True)
        yield from (hints.get(field.name) for field in cast(Any, kind).__attrs_attrs__)
    elif is_typeddict(kind) or (issubclass(cast(type, kind), tuple) and hasattr(kind, "_fields")):
        yield from get_type_hints(kind, include_extras=True).values()
        yield getattr(kind, "__extra_items__", None)


def _list_bases(model: type[BaseModel]) -> list[type]:
    """List a model's classes, without pydantic's own."""
    return [part for part in model.__mro__ if part is not BaseModel and issubclass(part, BaseModel)]

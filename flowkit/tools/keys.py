"""Cache keys: one text for each value, the same in every process.

The canonical form walks the validated Python values. JSON's own scalars stand for themselves; everything else is a
list that begins with its kind, so that a date and its text, a tuple and a list, two models with the same fields never
meet. Sets and the entries of dicts are sorted, NaN and bytes are spelled out, secrets are hashed with a key. The form
is finer than `==`: 1 and 1.0, 0.0 and -0.0, Decimal("1.0") and Decimal("1.00") are different arguments to a function.
"""

import base64
import datetime
import enum
import hashlib
import hmac
import inspect
import ipaddress
import math
import re
import secrets
import uuid
from collections import deque
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import MultiHostUrl, Url
from typing_extensions import is_typeddict

from flowkit.codec import JSON, dump_sorted

PROCESS_SECRET = secrets.token_bytes(32)
"""Keys the hashes of secrets by default: what lies in a cache can't be tested against guesses, and dies with us."""


class NotKeyable(ValueError):
    """A value of a type that has no canonical form."""


def make_key(parts: Sequence[JSON]) -> str:
    """The hash of canonical parts, in hexadecimal."""
    return hashlib.sha256(dump_sorted(list(parts))).hexdigest()


def freeze(value: object) -> Hashable:
    """What equals the same of another value exactly when their canonical forms are equal; only within this process.

    For plain values and lists of them, at a fraction of the price; raises `NotKeyable` for any other.
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return cast(Hashable, value)
    if kind is bool:
        return ("bool", value)  # true equals 1 to Python
    if kind is float:
        return ("float", repr(value))
    if kind is list:
        return ("list", *map(freeze, cast("list[object]", value)))
    raise NotKeyable(f"a {kind.__name__} isn't plain")


def canonicalize(value: Any, secret_key: bytes = PROCESS_SECRET) -> JSON:
    """The canonical form of a value; raises `NotKeyable` for one that has none."""
    if value is None or value is True or value is False:
        return value
    match value:
        case enum.Enum():
            return ["enum", _class_name(value), value.name]
        case str():
            return value if type(value) is str else ["str", _class_name(value), str(value)]
        case int():
            return value if -(2**53) < value < 2**53 else ["int", str(value)]
        case float():
            return value if math.isfinite(value) else ["float", repr(value)]
        case bytes() | bytearray():
            return [type(value).__name__, base64.b64encode(value).decode()]
        case SecretStr() | SecretBytes():
            return hash_secret(value.get_secret_value(), secret_key)
        case BaseModel():
            return _model_form(value, secret_key)
        case Mapping():
            return _mapping_form(cast(Mapping[object, object], value), secret_key)
        case Set():
            members = [canonicalize(member, secret_key) for member in cast(Set[object], value)]
            return [_type_name(value), sorted(members, key=dump_sorted)]
        case list() | tuple() | deque():
            items = [canonicalize(item, secret_key) for item in cast(Sequence[object], value)]
            return [_type_name(value), items]
        case _:
            return _leaf_form(value, secret_key)


def hash_secret(value: str | bytes, secret_key: bytes) -> JSON:
    """A secret's keyed hash: it tells equal from different, to those only who have the key."""
    data = value.encode() if isinstance(value, str) else value
    return ["secret", hmac.new(secret_key, data, hashlib.sha256).hexdigest()]


def _leaf_form(value: object, secret_key: bytes) -> JSON:
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return ["dataclass", _class_name(value), _mapping_form(held, secret_key)]
    if isinstance(value, datetime.datetime):
        return ["datetime", value.isoformat(), value.fold, str(value.tzinfo)]
    if isinstance(value, (datetime.date, datetime.time)):
        return [type(value).__name__, value.isoformat()]
    if isinstance(value, datetime.timedelta):
        return ["timedelta", value.days, value.seconds, value.microseconds]
    if isinstance(value, re.Pattern):
        return ["pattern", canonicalize(cast("re.Pattern[Any]", value).pattern), value.flags]
    if isinstance(value, _PRINTED):
        return [_class_name(value), str(value)]
    raise NotKeyable(f"a {type(value).__name__} has no canonical form")


def find_unkeyable(annotation: Any) -> type | None:
    """A class in an annotation whose values have no canonical form; None when there is none, or nobody can tell."""
    if get_origin(annotation) is Annotated:
        return find_unkeyable(get_args(annotation)[0])
    for part in get_args(annotation):
        found = find_unkeyable(part)
        if found is not None:
            return found
    kind: Any = get_origin(annotation) or annotation
    if not inspect.isclass(kind) or kind in (Any, object, UnionType) or issubclass(kind, _KEYABLE):
        return None
    return None if inspect.isabstract(kind) or is_typeddict(kind) or is_dataclass(kind) else cast(type, kind)


_PRINTED = (
    Decimal,
    Fraction,
    complex,
    uuid.UUID,
    PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    Url,
    MultiHostUrl,
)

_KEYABLE = (
    *_PRINTED,
    *(NoneType, enum.Enum, str, int, float, bytes, bytearray, SecretStr, SecretBytes, BaseModel),
    *(Mapping, Set, list, tuple, deque, datetime.date, datetime.time, datetime.timedelta, re.Pattern),
)


def _model_form(model: BaseModel, secret_key: bytes) -> JSON:
    held = model.__dict__ | (model.model_extra or {})
    return ["model", _class_name(model), _mapping_form(held, secret_key)]


def _mapping_form(mapping: Mapping[Any, object], secret_key: bytes) -> JSON:
    entries = [[canonicalize(key, secret_key), canonicalize(held, secret_key)] for key, held in mapping.items()]
    return ["dict", cast(JSON, sorted(entries, key=dump_sorted))]


def _type_name(value: Any) -> str:
    kind = cast(Any, type(value))
    return kind.__name__ if kind in (list, tuple, deque, set, frozenset) else f"{kind.__module__}.{kind.__qualname__}"


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"

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
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import NoneType, UnionType
from typing import Annotated, Any, cast, get_args, get_origin
from unicodedata import normalize

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import MultiHostUrl, Url
from typing_extensions import is_typeddict

from flowkit.codec import JSON, dump_sorted

PROCESS_SECRET = secrets.token_bytes(32)
"""Keys the hashes of secrets by default: what lies in a cache can't be tested against guesses, and dies with us."""


class NotKeyable(ValueError):
    """A value of a type that has no canonical form."""


def make_key(parts: Sequence[JSON]) -> str:
    """Hash canonical parts, in hexadecimal."""
    return hashlib.sha256(dump_sorted(parts)).hexdigest()


def freeze(value: object) -> Hashable:
    """Return a value that is equal exactly when the canonical forms are equal; only within this process.

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
    """Return the canonical form of a value; raises `NotKeyable` for one that has none."""
    if value is None or value is True or value is False:
        return value
    kind: type[object] = value.__class__  # not `type(value)` with `cast`, which is a call
    if kind is str:
        # Texts that look the same are the same, however they were typed (UAX #15).
        return value if value.isascii() else normalize("NFC", value)
    if kind is int:
        return value if -(2**53) < value < 2**53 else ["int", str(value)]
    if kind is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    form = _canonicalize_object(value, secret_key)
    # A class of the author's own, on top of whatever plain type, may keep more than that type shows.
    hidden = None if kind in _WITHOUT_STATE else find_hidden_state(value)
    return ["with", form, _mapping_form(hidden, secret_key)] if hidden else form


def _canonicalize_object(value: Any, secret_key: bytes) -> JSON:
    match value:
        case enum.Enum():
            # Its class may be one of several of this name, each made by a function.
            inner = [] if "<locals>" not in type(value).__qualname__ else [canonicalize(value.value, secret_key)]
            return ["enum", _class_name(value), value.name, *inner]
        case str():
            return ["str", _class_name(value), str.__str__(value)]
        case int():
            return ["int", _class_name(value), int.__repr__(value)]
        case float():
            return ["float", _class_name(value), float.__repr__(value)]
        case bytes() | bytearray():
            return [_type_name(value), base64.b64encode(value).decode()]
        case SecretStr() | SecretBytes():
            return hash_secret(value.get_secret_value(), secret_key)
        case Secret():
            held = canonicalize(cast("Secret[object]", value).get_secret_value(), secret_key)
            return hash_secret(dump_sorted(held), secret_key)
        case BaseModel():
            return _model_form(value, secret_key)
        case Mapping():
            return _mapping_form(cast(Mapping[object, object], value), secret_key)
        case Set():
            members = [canonicalize(member, secret_key) for member in cast(Set[object], value)]
            return [_type_name(value), sorted(members, key=dump_sorted)]
        case list() | tuple() | deque():
            items = [canonicalize(item, secret_key) for item in cast(Sequence[object], value)]
            limit = [value.maxlen] if isinstance(value, deque) and value.maxlen is not None else []
            return [_type_name(value), items, *limit]
        case _:
            return _leaf_form(value, secret_key)


def find_hidden_state(value: object) -> dict[str, object]:
    """Find what an object keeps beside its fields and items: private attributes, and those that its class adds."""
    kind = type(value)
    shown: set[str] = set()
    held: dict[str, object] = {}
    if isinstance(value, BaseModel):
        shown.update(type(value).model_fields)
        held.update(value.__pydantic_private__ or {})
    elif isinstance(value, enum.Enum):
        # What makes it an enum; a member of a class that can be imported is told by its name.
        shown.update(vars(value) if "<locals>" not in kind.__qualname__ else ("_value_", "_name_", "__objclass__"))
        shown.add("_sort_order_")
    elif is_dataclass(value):
        shown.update(field.name for field in fields(value))
    elif _is_attrs(kind):
        shown.update(field.name for field in cast(Any, kind).__attrs_attrs__)
    own = getattr(value, "__dict__", None)
    if own:
        held.update({name: part for name, part in cast("dict[str, object]", own).items() if name not in shown})
    for base in kind.__mro__ if not isinstance(value, BaseModel) else ():
        slots = cast("dict[str, Any]", vars(base)).get("__slots__", ()) if base.__module__ not in _LIBRARIES else ()
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in shown and name not in ("__dict__", "__weakref__") and hasattr(value, name):
                held[name] = getattr(value, name)
    # What was computed from the rest and kept is no part of the value.
    return {name: part for name, part in held.items() if not _is_cached(kind, name)}


def is_plain_value(value: object) -> bool:
    """Return whether the value's own type is plain, so that no user code can change it."""
    kind = type(value)
    if kind is datetime.datetime or kind is datetime.time:
        zone = type(cast(datetime.datetime, value).tzinfo)
        return zone in (NoneType, datetime.timezone) or zone.__module__ == "zoneinfo"
    return kind in _PLAIN


def hash_secret(value: str | bytes, secret_key: bytes) -> JSON:
    """Return a secret's keyed hash: only holders of the key can compare secrets by it."""
    data = value.encode() if isinstance(value, str) else value
    return ["secret", hmac.new(secret_key, data, hashlib.sha256).hexdigest()]


def _leaf_form(value: object, secret_key: bytes) -> JSON:
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return ["dataclass", _class_name(value), _mapping_form(held, secret_key)]
    if _is_attrs(type(value)):
        held = {field.name: getattr(value, field.name) for field in cast(Any, value).__attrs_attrs__}
        return ["dataclass", _class_name(value), _mapping_form(held, secret_key)]
    if isinstance(value, datetime.datetime):
        return [_type_name(value), value.isoformat(), value.fold, str(value.tzinfo)]
    if isinstance(value, (datetime.date, datetime.time)):
        return [_type_name(value), value.isoformat()]
    if isinstance(value, datetime.timedelta):
        return [_type_name(value), value.days, value.seconds, value.microseconds]
    if isinstance(value, re.Pattern):
        return ["pattern", canonicalize(cast("re.Pattern[Any]", value).pattern), value.flags]
    if isinstance(value, _PRINTED):
        return [_class_name(value), str(value)]
    raise NotKeyable(f"a {type(value).__name__} has no canonical form")


def find_unkeyable(annotation: Any) -> type | None:
    """Find a class in an annotation whose values have no canonical form; None if there is none, or it is unknown."""
    if get_origin(annotation) is Annotated:
        return find_unkeyable(get_args(annotation)[0])
    for part in get_args(annotation):
        found = find_unkeyable(part)
        if found is not None:
            return found
    kind: Any = get_origin(annotation) or annotation
    if not inspect.isclass(kind) or kind in (Any, object, UnionType) or issubclass(kind, _KEYABLE):
        return None
    is_record = is_typeddict(kind) or is_dataclass(kind) or _is_attrs(kind)
    return None if is_record or inspect.isabstract(kind) else cast(type, kind)


def _is_attrs(kind: type[object]) -> bool:
    return hasattr(kind, "__attrs_attrs__")


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
    *(NoneType, enum.Enum, str, int, float, bytes, bytearray, Secret, SecretStr, SecretBytes, BaseModel),
    *(Mapping, Set, list, tuple, deque, datetime.date, datetime.time, datetime.timedelta, re.Pattern),
)

_PLAIN = frozenset(
    (
        *(NoneType, bool, int, float, complex, str, bytes, Decimal, Fraction, uuid.UUID, re.Pattern),
        *(datetime.date, datetime.timedelta, PurePath, PurePosixPath, PureWindowsPath, type(Path())),
        *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network),
        *(ipaddress.IPv4Interface, ipaddress.IPv6Interface, Url, MultiHostUrl),
    )
)
_WITHOUT_STATE = _PLAIN | {
    *(dict, list, tuple, set, frozenset, deque, bytearray, datetime.datetime, datetime.time),
    *(SecretStr, SecretBytes),
}
_LIBRARIES = frozenset(("builtins", "collections", "datetime", "decimal", "fractions", "pathlib", "typing", "enum"))
"""Where a class's slots hold what the form above shows."""


def _model_form(model: BaseModel, secret_key: bytes) -> JSON:
    own = {name: model.__dict__[name] for name in type(model).model_fields if name in model.__dict__}
    return ["model", _class_name(model), _mapping_form(own | (model.model_extra or {}), secret_key)]


def _mapping_form(mapping: Mapping[Any, object], secret_key: bytes) -> JSON:
    entries = [[canonicalize(key, secret_key), canonicalize(held, secret_key)] for key, held in mapping.items()]
    if type(mapping) is dict:
        return ["dict", cast(JSON, sorted(entries, key=dump_sorted))]
    # One of another class may keep an order, and make what is missing.
    factory: Any = getattr(mapping, "default_factory", None)
    if factory is not None and not inspect.isclass(factory):
        raise NotKeyable("a default factory has no canonical form")
    made = [] if factory is None else [f"{factory.__module__}.{factory.__qualname__}"]
    return [_type_name(mapping), cast(JSON, entries), *made]


def _is_cached(kind: type[object], name: str) -> bool:
    return any(isinstance(vars(base).get(name), cached_property) for base in kind.__mro__)


def _type_name(value: Any) -> str:
    kind = cast(Any, type(value))
    return kind.__name__ if kind in _SHORT else f"{kind.__module__}.{kind.__qualname__}"


_SHORT = (
    *(list, tuple, deque, set, frozenset, bytes, bytearray),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"

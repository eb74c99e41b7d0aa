"""Calls for human readers: their arguments as JSON, with all secrets of the tool or its types masked.

A schema marks the places of secrets: by `writeOnly`, or by the format `password`, as pydantic writes them for
`SecretStr`. In a union every branch counts. A value that the schema doesn't describe may be the secret, so all of it is
masked: for example a misspelt field beside a secret one, or a text instead of an object with a secret.
"""

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.references import SCALARS, Reference, format_pointer

MASK = "**********"
"""The text that replaces a secret; in a decision it means "unchanged"."""

NOTE_LENGTH = 80
"""How much of an early result its `call.progress` shows."""
SHORTEST_ECHO = 4
"""Shorter secrets are too common as parts of words to be looked for in texts; a text that is one is masked."""
LONG_ECHO = 6
"""Secrets of this length and more are looked for in arguments where none belongs."""

Step = str | int


class SchemaPlace:
    """The secrets that a schema marks at one place of a value; made once per part of a schema, so it may contain itself."""

    __slots__ = ("content", "fields", "has_secret_names", "holds", "is_secret", "items", "others", "takes_text")

    def __init__(self) -> None:
        self.is_secret = self.has_secret_names = False
        self.takes_text = False
        self.holds = False
        """Whether it is secret, or has something below it that is."""
        self.fields: dict[str, list[SchemaPlace]] = {}
        self.others: list[SchemaPlace] = []
        self.items: list[SchemaPlace] = []
        self.content: list[SchemaPlace] = []
        """The JSON inside a text; if that contains a secret, the whole text is one."""


class SecretPlaces(Set[str]):
    """Where the arguments of a tool hold secrets. As a set it has the names of those that are nothing else."""

    def __init__(
        self, names: Collection[str] = (), load: Callable[[], Mapping[str, JSON] | None] | None = None
    ) -> None:
        """Prepare the places; `load` returns the arguments' schema when first needed.

        None where nothing in it is secret.
        """
        self.names = frozenset(names)
        self._load = load
        self._root: SchemaPlace | None = None

    @property
    def root(self) -> SchemaPlace:
        """The place of the arguments as a whole."""
        if self._root is None:
            schema = None if self._load is None else self._load()
            root = SchemaPlace() if schema is None else _read_schema(schema)
            for name in self.names:
                secret = SchemaPlace()
                secret.is_secret = secret.holds = root.holds = True
                root.fields[name] = [secret, *root.fields.get(name, ())]
            self._root = root
        return self._root

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return frozenset(it)

    def __bool__(self) -> bool:
        """Return whether there is any secret, at any depth."""
        return bool(self.names) or (self._load is not None and self.root.holds)

    def adding(self, names: Collection[str]) -> "SecretPlaces":
        """Return a copy with more names of secret arguments."""
        return SecretPlaces(self.names | frozenset(names), self._load) if names else self

    def touch(self, name: str) -> bool:
        """Return whether this argument is a secret, or holds one."""
        return name in self.names or (bool(self) and any(place.holds for place in self.root.fields.get(name, ())))

    def list_arguments(self) -> list[str]:
        """List the names of the arguments that are secrets, or hold any."""
        return sorted(filter(self.touch, self.root.fields)) if self else []

    def mask(self, arguments: Mapping[str, object]) -> dict[str, JSON]:
        """Convert the arguments to JSON, with a mask for each secret, also where another argument repeats it."""
        shown = cast("dict[str, JSON]", _mask(arguments, [self.root]))
        return self.mask_repeats(shown, self.find(arguments))

    def mask_repeats(self, shown: Mapping[str, JSON], found: Collection[str]) -> dict[str, JSON]:
        """Mask the secrets that were found where masked arguments repeat them."""
        whole = {secret for secret in found if len(secret) >= SHORTEST_ECHO}
        if not whole:
            return dict(shown)
        return {
            name: mask_repeats(_mask_equal(part, whole) if self.touch(name) else part, whole)
            for name, part in shown.items()
        }

    def mask_at(self, value: object, path: Sequence[Step]) -> JSON:
        """Mask the value at this path; a step that no schema knows, such as a branch's name, is skipped."""
        return _mask(value, self._walk(path))

    def covers(self, path: Sequence[Step]) -> bool:
        """Return whether the value at this path is, or is in, a secret."""
        return bool(self) and any(place.is_secret for place in self._walk(path))

    def hold_at(self, path: Sequence[Step]) -> bool:
        """Return whether the value at this path is a secret, or holds one."""
        return bool(self) and any(place.holds for place in self._walk(path))

    def _walk(self, path: Sequence[Step]) -> list[SchemaPlace]:
        places = [self.root]
        for depth, step in enumerate(path):
            if any(place.is_secret for place in places):
                break
            below = _step_into(places, step)
            if below is None and depth == 0:
                return []  # another name of an argument that is none, such as the function's own for an alias
            places = places if below is None else below
        return places

    def find(self, arguments: Mapping[str, object]) -> frozenset[str]:
        """Find the texts of the secrets in these arguments, to search for elsewhere."""
        return frozenset(_find(arguments, [self.root])) if self else frozenset()


NO_SECRETS = SecretPlaces()


def show_arguments(arguments: Mapping[str, object], secrets: Collection[str] = ()) -> JSON:
    """Return arguments as JSON, masked at the places of `secrets`; references keep the model's form."""
    if not secrets:
        if SCALARS.issuperset(map(type, arguments.values())):
            return cast(JSON, arguments)
        return {name: _show(value) for name, value in arguments.items()}
    places = secrets if isinstance(secrets, SecretPlaces) else SecretPlaces(secrets)
    return cast(JSON, places.mask(arguments))


def show_note(value: JSON) -> str:
    """Return the beginning of a result."""
    text = value if isinstance(value, str) else dumps(value).decode()
    return text if len(text) <= NOTE_LENGTH else text[: NOTE_LENGTH - 1] + "…"


def mask_echoes(value: JSON, secrets: Collection[str]) -> JSON:
    """Mask the secrets in a result that it repeats from its call's arguments."""
    if not secrets:
        return value
    if isinstance(value, str):
        return MASK if value in secrets else mask_text(value, secrets)
    if isinstance(value, list):
        return [mask_echoes(item, secrets) for item in value]
    if isinstance(value, dict):
        return {mask_text(key, secrets): mask_echoes(item, secrets) for key, item in value.items()}
    return value


def mask_repeats(value: JSON, secrets: Collection[str]) -> JSON:
    """Mask the long ones of these secrets wherever a value repeats them, also inside of texts, names and numbers."""
    long = [secret for secret in secrets if len(secret) >= LONG_ECHO]
    return _mask_inside(value, long) if long else value


def _mask_inside(value: JSON, secrets: Collection[str]) -> JSON:
    if isinstance(value, str):
        return mask_text(value, secrets)
    if isinstance(value, list):
        return [_mask_inside(item, secrets) for item in value]
    if isinstance(value, dict):
        return {mask_text(key, secrets): _mask_inside(item, secrets) for key, item in value.items()}
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return MASK if is_number and str(value) in secrets else value


def mask_text(text: str, secrets: Collection[str]) -> str:
    """Mask the secrets that occur in a text; the longest first, since one may be a part of another."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_ECHO:
            for form in {secret, repr(secret)[1:-1], dumps(secret).decode()[1:-1]}:
                text = text.replace(form, MASK)
    return text


def show_traceback(error: BaseException, secrets: Collection[str]) -> str:
    """Return the traceback of an error and its causes, with secrets in their texts masked."""
    return mask_text("".join(traceback.format_exception(error)), secrets)


def unmask(given: object, before: object, shown: JSON) -> object:
    """Turn the masks that were `shown` for `before` back into their values, in what a person entered.

    A text that holds a mask has to come back unchanged. Items of a list are matched by their visible parts, and by their
    position if the number of items is the same. Raises `ValueError` for a mask without a value, or with several
    possible ones.
    """
    if given == shown:
        return before
    if isinstance(given, str):
        if given == MASK:
            raise ValueError("stands for no secret here: leave it out, or write the value")
        if isinstance(shown, str) and MASK in shown:
            raise ValueError("stands inside of a text that was changed: write the whole text")
        return given
    if isinstance(given, Mapping):
        given_fields = cast("Mapping[str, object]", given)
        olds: Mapping[str, object] = cast("Mapping[str, object]", before) if isinstance(before, Mapping) else {}
        shows = shown if isinstance(shown, dict) else {}
        if any(MASK in name and name in shows and name not in olds for name in given_fields):
            raise ValueError("stands in a name: leave the whole object as it was, or write the value")
        return {
            name: unmask(value, olds.get(name), shows.get(name)) if _has_mask(value) else value
            for name, value in given_fields.items()
        }
    if isinstance(given, (list, tuple)):
        return _unmask_items(list(cast("Sequence[object]", given)), before, shown)
    return given


def _unmask_items(given: list[object], before: object, shown: JSON) -> list[object]:
    olds = list(cast("Sequence[object]", before)) if isinstance(before, (list, tuple)) else []
    shows = shown if isinstance(shown, list) else []
    unmasked: list[object] = []
    for place, item in enumerate(given):
        if not _has_mask(item):
            unmasked.append(item)
            continue
        same = [other for other, text in enumerate(shows) if text == item]
        if len(same) > 1 or not same:
            # An item that was both moved and changed can't be matched.
            is_in_place = len(given) == len(shows) and (not same or place in same)
            if not is_in_place or (not same and shows[place] in given):
                raise ValueError("stands for one of several secrets: write the value")
            same = [place]
        unmasked.append(unmask(item, olds[same[0]], shows[same[0]]))
    return unmasked


def _has_mask(value: object) -> bool:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        return any(map(_has_mask, fields)) or any(map(_has_mask, fields.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_mask, cast("Sequence[object]", value)))
    return isinstance(value, str) and MASK in value


def _mask(value: object, places: list[SchemaPlace]) -> JSON:
    if any(place.is_secret for place in places):
        return MASK
    if not any(place.holds for place in places) or type(value) is Reference:
        return _show(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        return {str(key): _mask_below(part, _step_into(places, str(key))) for key, part in fields.items()}
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        return [_mask_below(part, _step_into(places, index)) for index, part in enumerate(items)]
    if value is None or isinstance(value, (bool, int, float)):
        return cast(JSON, value)
    if isinstance(value, str):
        return value if any(place.takes_text for place in places) else MASK
    shown = _show(value)
    # A Python value: its types mask their own secrets, and the schema may mark more.
    return _mask(shown, places) if isinstance(shown, (dict, list)) else shown


def _mask_equal(value: JSON, secrets: Set[str]) -> JSON:
    """Mask the texts that are one of these secrets as a whole: a part of a text couldn't be turned back."""
    if isinstance(value, str):
        return MASK if value in secrets else value
    if isinstance(value, list):
        return [_mask_equal(item, secrets) for item in value]
    if isinstance(value, dict):
        return {key: _mask_equal(item, secrets) for key, item in value.items()}
    return value


def _mask_below(value: object, places: list[SchemaPlace] | None) -> JSON:
    return MASK if places is None else _mask(value, places)


def _find(value: object, places: list[SchemaPlace] | None) -> Iterator[str]:
    if places is None or any(place.is_secret for place in places):
        yield from _list_texts(value)
        if isinstance(value, Mapping) and any(place.has_secret_names for place in places or ()):
            yield from _list_texts(list(cast("Mapping[object, object]", value)))
        content = [part for place in places or () for part in place.content]
        if content and isinstance(value, str):
            with suppress(ValueError):  # it is no JSON
                yield from _find(loads(value), content)
    elif isinstance(value, Mapping):
        for key, part in cast("Mapping[object, object]", value).items():
            yield from _find(part, _step_into(places, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(cast("Sequence[object]", value)):
            yield from _find(part, _step_into(places, index))


def _list_texts(value: object) -> Iterator[str]:
    opened = getattr(value, "get_secret_value", None)
    if opened is not None:
        yield from _list_texts(opened())
    elif isinstance(value, Mapping):
        for part in cast("Mapping[object, object]", value).values():
            yield from _list_texts(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in cast("Collection[object]", value):
            yield from _list_texts(part)
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif value is not None and value is not True and value is not False:
        yield str(value)


def _step_into(places: list[SchemaPlace], step: Step) -> list[SchemaPlace] | None:
    """Return the places one step below; none where nothing there is secret, None where it is unknown."""
    below: list[SchemaPlace] = []
    is_known = False
    for place in places:
        if isinstance(step, int):
            found = place.items
            is_known = is_known or bool(found)
        else:
            found = place.fields.get(step, place.others)
            is_known = is_known or step in place.fields or bool(place.others)
        below += found
    return None if not is_known and any(place.holds for place in places) else below


def _read_schema(schema: Mapping[str, JSON]) -> SchemaPlace:
    """Read the places of a whole schema, and which of them hold secrets."""
    reader = _SchemaPlaces(schema)
    root = reader.read(schema)
    changed = True
    while changed:
        changed = False
        for place in reader.places:
            if not place.is_secret and any(part.holds for part in place.content):
                place.is_secret = changed = True
            below = [*place.others, *place.items, *(part for parts in place.fields.values() for part in parts)]
            if not place.holds and (place.is_secret or any(part.holds for part in below)):
                place.holds = changed = True
    return root


class _SchemaPlaces:
    def __init__(self, root: Mapping[str, JSON]) -> None:
        self._root = root
        self._made: dict[int, SchemaPlace] = {}
        self.places: list[SchemaPlace] = []

    def read(self, schema: Mapping[str, JSON]) -> SchemaPlace:
        found = self._made.get(id(schema))
        if found is None:
            found = self._made[id(schema)] = SchemaPlace()
            self.places.append(found)
            self._fill(found, schema, set())
        return found

    def _fill(self, place: SchemaPlace, schema: Mapping[str, JSON], entered: set[int]) -> None:
        """Add the marks of this part, and those of its branches and references, for the same place."""
        if id(schema) in entered:
            return
        entered.add(id(schema))
        if schema.get("writeOnly") is True or schema.get("format") == "password":
            place.is_secret = True
        kinds = schema.get("type")
        place.takes_text = place.takes_text or kinds == "string" or (isinstance(kinds, list) and "string" in kinds)
        for names in ("properties", "patternProperties"):
            for name, part in _schemas_of(schema.get(names)):
                if names == "properties":
                    place.fields.setdefault(name, []).append(self.read(part))
                else:
                    place.others.append(self.read(part))
        for name in ("additionalProperties", "unevaluatedProperties"):
            place.others += [self.read(part) for part in _one_schema(schema.get(name))]
        if any(self.read(part).is_secret for part in _one_schema(schema.get("propertyNames"))):
            place.is_secret = place.has_secret_names = True
        for name in ("items", "contains", "unevaluatedItems"):
            place.items += [self.read(part) for part in _one_schema(schema.get(name))]
        place.items += [self.read(part) for part in _list_schemas(schema.get("prefixItems"))]
        place.content += [self.read(part) for part in _one_schema(schema.get("contentSchema"))]
        for name in ("anyOf", "oneOf", "allOf"):
            for part in _list_schemas(schema.get(name)):
                self._fill(place, part, entered)
        for name in ("if", "then", "else"):
            for part in _one_schema(schema.get(name)):
                self._fill(place, part, entered)
        for _, part in _schemas_of(schema.get("dependentSchemas")):
            self._fill(place, part, entered)
        reference = schema.get("$ref")
        if isinstance(reference, str) and (target := self._look_up(reference)) is not None:
            self._fill(place, target, entered)

    def _look_up(self, reference: str) -> Mapping[str, JSON] | None:
        if not reference.startswith("#"):
            return None
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = cast("Mapping[str, Any]", found).get(step) if isinstance(found, Mapping) else None
        return cast("Mapping[str, JSON]", found) if isinstance(found, Mapping) else None


def _one_schema(part: JSON) -> list[Mapping[str, JSON]]:
    return [part] if isinstance(part, dict) else []


def _list_schemas(part: JSON) -> list[Mapping[str, JSON]]:
    return [item for item in part if isinstance(item, dict)] if isinstance(part, list) else []


def _schemas_of(part: JSON) -> list[tuple[str, Mapping[str, JSON]]]:
    return [(name, item) for name, item in part.items() if isinstance(item, dict)] if isinstance(part, dict) else []


def _show(value: object) -> JSON:
    if type(value) in SCALARS:
        return cast(JSON, value)
    if type(value) is Reference:
        return {"from_call": value.call_id, "path": format_pointer(value.path) if value.path else ""}
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        # A list of a million numbers would keep the loop for a second.
        return cast(JSON, list(items)) if SCALARS.issuperset(map(type, items)) else [_show(item) for item in items]
    if isinstance(value, Mapping):
        return {str(key): _show(item) for key, item in cast("Mapping[object, object]", value).items()}
    # Imported here: only Python values need it, and events are read where no tool is.
    from pydantic_core import to_jsonable_python

    return cast(JSON, to_jsonable_python(value, bytes_mode="base64", fallback=repr))

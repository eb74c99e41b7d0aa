"""Convert values between the lowered and the faithful schema, in both directions.

A strict target can't carry some shapes: a field that may be left out, a dict with free keys, a tuple. Each is lowered
to another shape, and the lowering remembers how by a small tree of the values below. `raised` goes from what the
model wrote to what validation expects, `lowered` the other way (history and prefetched calls are shown as the model
would have written them). Neither judges: a value of an unexpected shape passes through, and validation names it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Protocol

from flowkit.codec import JSON
from flowkit.schema_paths import types_of_value


class Conversion(Protocol):
    """One node of the tree."""

    def raised(self, value: JSON) -> JSON:
        """Convert to the faithful schema's value."""
        ...

    def lowered(self, value: JSON) -> JSON:
        """Convert to the target schema's value."""
        ...

    def changes(self, asked: set[str]) -> bool:
        """Return True if any value changes; `asked` holds the definitions already being checked."""
        ...


@dataclass(frozen=True, slots=True)
class Same:
    """The value itself."""

    def raised(self, value: JSON) -> JSON:
        return value

    def lowered(self, value: JSON) -> JSON:
        return value

    def changes(self, asked: set[str]) -> bool:
        return False


SAME = Same()


@dataclass(frozen=True, slots=True)
class Items:
    """A list; each item is converted separately."""

    item: Conversion

    def raised(self, value: JSON) -> JSON:
        return [self.item.raised(item) for item in value] if isinstance(value, list) else value

    def lowered(self, value: JSON) -> JSON:
        return [self.item.lowered(item) for item in value] if isinstance(value, list) else value

    def changes(self, asked: set[str]) -> bool:
        return self.item.changes(asked)


@dataclass(frozen=True, slots=True)
class Pairs:
    """A list of `{"key", "value"}` for a dict with free keys."""

    value: Conversion

    def raised(self, value: JSON) -> JSON:
        if not isinstance(value, list):
            return value
        raised: dict[str, JSON] = {}
        for pair in value:
            if not isinstance(pair, dict) or pair.keys() != {"key", "value"}:
                return value
            key = pair["key"]
            # A key that comes twice can't be kept in a dict; dropping one would guess, so validation refuses the list.
            if not isinstance(key, str) or key in raised:
                return value
            raised[key] = self.value.raised(pair["value"])
        return raised

    def lowered(self, value: JSON) -> JSON:
        if not isinstance(value, dict):
            return value
        return [{"key": key, "value": self.value.lowered(item)} for key, item in value.items()]

    def changes(self, asked: set[str]) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Positions:
    """An object with the keys `item_1`, `item_2`, … for a tuple."""

    items: tuple[Conversion, ...]

    @staticmethod
    def key(index: int) -> str:
        return f"item_{index + 1}"

    def raised(self, value: JSON) -> JSON:
        keys = [self.key(index) for index in range(len(self.items))]
        if not isinstance(value, dict) or value.keys() != set(keys):
            return value
        return [item.raised(value[key]) for item, key in zip(self.items, keys, strict=True)]

    def lowered(self, value: JSON) -> JSON:
        if not isinstance(value, list) or len(value) != len(self.items):
            return value
        return {
            self.key(index): conversion.lowered(item)
            for index, (conversion, item) in enumerate(zip(self.items, value, strict=True))
        }

    def changes(self, asked: set[str]) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Fields:
    """An object; a null in a field of `optional` means that the field is omitted.

    `defaults` maps optional fields for which null is a value to the value that means omission.
    `extra` is the key under which fields without a name of their own travel, as pairs.
    """

    fields: Mapping[str, Conversion]
    optional: frozenset[str] = frozenset()
    defaults: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    extra: str | None = None
    extra_value: Conversion = SAME

    def raised(self, value: JSON) -> JSON:
        if not isinstance(value, dict):
            return value
        raised: dict[str, JSON] = {}
        for key, item in value.items():
            if item is None and key in self.optional:
                continue
            if key == self.extra:
                pairs = Pairs(self.extra_value).raised(item)
                if isinstance(pairs, dict) and not pairs.keys() & self.fields.keys():
                    raised |= pairs
                    continue
            raised[key] = self.fields.get(key, SAME).raised(item)
        return raised

    def lowered(self, value: JSON) -> JSON:
        if not isinstance(value, dict):
            return value
        lowered: dict[str, JSON] = {}
        for key, conversion in self.fields.items():
            if key in value:
                lowered[key] = conversion.lowered(value[key])
            elif key in self.optional:
                lowered[key] = None
            elif key in self.defaults:
                lowered[key] = conversion.lowered(self.defaults[key])
        others: dict[str, JSON] = {key: item for key, item in value.items() if key not in self.fields}
        if self.extra is None:
            return lowered | others
        return {**lowered, self.extra: Pairs(self.extra_value).lowered(others)}

    def changes(self, asked: set[str]) -> bool:
        return bool(self.optional or self.defaults or self.extra) or any(
            conversion.changes(asked) for conversion in self.fields.values()
        )


class Shape(Protocol):
    """The form of an alternative's values."""

    @property
    def types(self) -> frozenset[str]:
        """Their JSON types."""
        ...

    def fits(self, value: JSON) -> bool:
        """Check the value fully, for when types don't decide."""
        ...


@dataclass(frozen=True, slots=True)
class Branch:
    """One alternative of a union, in both shapes, and its way."""

    after: Shape
    before: Shape
    conversion: Conversion


@dataclass(frozen=True, slots=True)
class Choice:
    """A union: the first alternative that the value fits goes its way."""

    branches: Sequence[Branch]

    def raised(self, value: JSON) -> JSON:
        branch = _select(value, [(branch.after, branch) for branch in self.branches])
        return value if branch is None else branch.conversion.raised(value)

    def lowered(self, value: JSON) -> JSON:
        branch = _select(value, [(branch.before, branch) for branch in self.branches])
        return value if branch is None else branch.conversion.lowered(value)

    def changes(self, asked: set[str]) -> bool:
        return any(branch.conversion.changes(asked) for branch in self.branches)

    def is_reversible(self) -> bool:
        """Return whether no alternative accepts a type that another one produces."""
        return not any(
            (branch.after.types - branch.before.types) & other.after.types & other.before.types
            for branch, other in permutations(self.branches, 2)
        )


def _select(value: JSON, branches: Sequence[tuple[Shape, Branch]]) -> Branch | None:
    kinds = types_of_value(value)
    candidates = [(shape, branch) for shape, branch in branches if shape.types & kinds]
    if len(candidates) == 1:
        return candidates[0][1]
    return next((branch for shape, branch in candidates if shape.fits(value)), None)


@dataclass(frozen=True, slots=True)
class Named:
    """The conversion of a definition, looked up when it is used: definitions may hold themselves."""

    name: str
    table: Mapping[str, Conversion]

    def raised(self, value: JSON) -> JSON:
        return self.table[self.name].raised(value)

    def lowered(self, value: JSON) -> JSON:
        return self.table[self.name].lowered(value)

    def changes(self, asked: set[str]) -> bool:
        if self.name in asked:
            return False
        asked.add(self.name)
        return self.table[self.name].changes(asked)

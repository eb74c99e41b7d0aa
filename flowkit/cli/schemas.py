"""What a JSON Schema of arguments says, as far as commands show it or read text by it."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowkit import codec
from flowkit.codec import JSON


@dataclass(frozen=True, slots=True)
class Property:
    """One argument: its name, its schema, and whether it must be given."""

    name: str
    schema: Mapping[str, JSON]
    is_required: bool

    def read(self, text: str) -> JSON:
        """Text from a command line: as it stands where the schema takes text, else as JSON where it is some.

        What doesn't fit is left to the validation of the arguments, which says more.
        """
        kinds = self._kinds()
        if "string" in kinds and not ("null" in kinds and text == "null"):
            return text
        try:
            return codec.loads(text)
        except ValueError:
            return text

    def _kinds(self) -> set[str]:
        found: set[str] = set()
        for option in (dict(self.schema), *_items(self.schema.get("anyOf"))):
            kind = option.get("type") if isinstance(option, dict) else None
            found.update(name for name in (kind, *_items(kind)) if isinstance(name, str))
        return found


def read_properties(schema: Mapping[str, JSON]) -> dict[str, Property]:
    """The arguments of an object's schema, by name, in its order."""
    properties, required = schema.get("properties"), _items(schema.get("required"))
    if not isinstance(properties, dict):
        return {}
    return {
        name: Property(name, found if isinstance(found, dict) else {}, name in required)
        for name, found in properties.items()
    }


def _items(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []

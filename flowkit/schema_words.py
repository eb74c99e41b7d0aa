"""JSON Schemas of arguments: describe them in words, and parse command-line text by them."""

from collections.abc import Mapping
from dataclasses import dataclass

from flowkit import codec
from flowkit.codec import JSON

_LIMITS = {
    "pattern": "matching {}",
    "format": "as {}",
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "{} or more",
    "maxItems": "at most {}",
}
_SAID = {"$ref", "type", "enum", "items", "anyOf", "description", "title", "default", *_LIMITS}


def say_schema(schema: Mapping[str, JSON]) -> str:
    """Describe a schema in words, its descriptions last; falls back to JSON for keywords without words.

    >>> say_schema({"type": "integer", "minimum": 1, "default": 3, "description": "How many."})
    'integer, at least 1, default 3. How many.'
    >>> say_schema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": None})
    'list of string, or null'
    >>> say_schema({"type": "array", "items": {"$ref": "#/$defs/Order"}, "minItems": 1})
    'list of Order, 1 or more'
    >>> say_schema({"type": "object", "patternProperties": {}})
    '{"type":"object","patternProperties":{}}'
    """
    descriptions: list[str] = []
    said = _say_type(dict(schema), descriptions)
    if said is None:
        return codec.dumps(dict(schema)).decode()
    if schema.get("default") is not None:
        said += f", default {codec.dumps(schema['default']).decode()}"
    return f"{said}. {' '.join(descriptions)}" if descriptions else said


def _say_type(schema: JSON, descriptions: list[str]) -> str | None:
    """Describe the type, or return None if there are no words for it; append nested descriptions to `descriptions`."""
    if not isinstance(schema, dict) or schema.keys() - _SAID:
        return None
    if isinstance(description := schema.get("description"), str):
        descriptions.append(description)
    match schema:
        case {"anyOf": list(options)}:
            kinds = [_say_type(option, descriptions) for option in options]
            return None if None in kinds else ", or ".join(filter(None, kinds))
        case {"enum": list(values)}:
            return " | ".join(codec.dumps(value).decode() for value in values)
        case {"type": "array", "items": items}:
            inner = _say_type(items, descriptions)
            if inner is None:
                return None
            kind = f"list of {inner}"
        case {"$ref": str(reference)}:
            kind = reference.rsplit("/", 1)[-1]
        case {"type": str(kind)}:
            pass
        case _:
            return None
    limits = [words.format(schema[key]) for key, words in _LIMITS.items() if key in schema]
    return ", ".join([kind, *limits])


@dataclass(frozen=True, slots=True)
class Property:
    """An argument: its name, its schema, and whether it is required."""

    name: str
    schema: Mapping[str, JSON]
    is_required: bool

    def read(self, text: str) -> JSON:
        """Read text from a command line: unchanged if the schema accepts a string, else as JSON if it parses.

        Text that doesn't fit is left to the validation of the arguments, which has better messages.
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
    """Read the arguments from an object's schema, by name, in its order."""
    properties, required = schema.get("properties"), _items(schema.get("required"))
    if not isinstance(properties, dict):
        return {}
    return {
        name: Property(name, found if isinstance(found, dict) else {}, name in required)
        for name, found in properties.items()
    }


def _items(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []

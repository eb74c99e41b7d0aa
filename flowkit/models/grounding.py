"""Argument schemas rewritten from a request, so that a small model can only copy values out of it.

A weak model invents order numbers. Under a grounded schema it can't: what has a pattern or an enum keeps the matches
that the request holds, a number the numbers in it, a text the spans of one to eight of its words. An optional
argument that nothing matches is left out; a required one is missing, and the user is asked for it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from flowkit.codec import JSON

Schema = Mapping[str, JSON]

LONGEST_SPAN = 8
"""Words that a text argument may have."""
MOST_SPANS = 160
"""Spans of a request that are looked at; of a longer one the shorter spans first."""
MOST_CHOICES = 4
"""Spans that a text argument is offered, the likeliest first."""

_WEAK_WORDS = """
a an the my your our their his her its this that these those it is are was be been am i you we they me us he
she what where when how who which why do does did can could would should will shall may might must have has
had get give tell show find search look check send please want need like to of for in on at by from with
about under over below above between and or but then also not no any some there here if as so than too very
just much many more most up out
"""
_WEAK = frozenset(_WEAK_WORDS.split())
"""Words that no argument begins or ends with."""

_NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:[.,]\d{3})*(?:\.\d+)?")
_WORD = re.compile(r"\S+")
_AMOUNT = re.compile(r"(?<!\w)\d[\d.,]*\s*(?:kg|g|km|m|cm|lb|%|won|usd|krw|eur|dollars?|원|킬로)(?!\w)", re.IGNORECASE)
_CODE = re.compile(r"\b[A-Z]{1,6}-?\d+\b")
_EDGES = " \t\n.,;:!?\"'()[]{}“”‘’"
_FORMATS = {
    "date": re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
    "date-time": re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?"),
    "time": re.compile(r"\b\d{2}:\d{2}(?::\d{2})?\b"),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "uuid": re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
}


@dataclass(frozen=True, slots=True)
class Grounded:
    """A schema that allows only what the request says; `missing` names required arguments that it doesn't say."""

    schema: dict[str, JSON]
    missing: tuple[str, ...] = ()
    found: tuple[str, ...] = field(default=())


Rank = Callable[[str, Sequence[str]], Sequence[str]]
"""Orders texts by how well they fit a description, the best first."""


def ground(schema: Schema, request: str, rank: Rank | None = None) -> Grounded:
    """The object schema of a tool's arguments, grounded in a request; `rank` chooses between its spans."""
    definitions = cast(Mapping[str, Schema], schema.get("$defs", {}))
    required = set(cast(Sequence[str], schema.get("required", ())))
    properties: dict[str, JSON] = {}
    missing: list[str] = []
    for name, argument in cast(Mapping[str, Schema], schema.get("properties", {})).items():
        grounded = _ground(name, _resolved(argument, definitions), request, definitions)
        if grounded is not None and rank is not None and _is_plain_text(argument, definitions):
            spans = cast(list[str], grounded["enum"])
            described = f"{name.replace('_', ' ')}: {argument.get('description', '')}"
            grounded = _choice(list(rank(described, spans))[:MOST_CHOICES])
        if grounded is not None and (name in required or not _is_plain_text(argument, definitions)):
            properties[name] = grounded
        elif name in required:
            missing.append(name)
    body: dict[str, JSON] = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return Grounded(body, tuple(missing), tuple(properties))


def _ground(name: str, schema: Schema, request: str, definitions: Mapping[str, Schema]) -> dict[str, JSON] | None:
    """The schema of what the request holds for this argument; None when it holds nothing."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            branches = (
                _ground(name, _resolved(branch, definitions), request, definitions)
                for branch in cast(Sequence[Schema], schema[key])
                if branch.get("type") != "null"
            )
            return next((branch for branch in branches if branch is not None), None)
    if "const" in schema or "enum" in schema:
        allowed = cast(Sequence[JSON], schema.get("enum", [schema.get("const")]))
        return _choice([value for value in allowed if value is not None and _says(request, str(value))])
    match schema.get("type"):
        case "boolean":
            return {"const": True} if _says(request, name.replace("_", " ")) else None
        case "integer":
            return _choice([int(number) for number in _numbers(request) if number == int(number)])
        case "number":
            return _choice([int(number) if number == int(number) else number for number in _numbers(request)])
        case "array":
            items = _ground(name, _resolved(cast(Schema, schema.get("items", {})), definitions), request, definitions)
            return None if items is None else {"type": "array", "items": items, "minItems": 1, "maxItems": 4}
        case "string":
            return _choice(list(_texts(schema, request)))
        case _:
            return None


def _texts(schema: Schema, request: str) -> Iterator[str]:
    pattern, shape = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str):
        # The pattern is of the whole argument; in a request it stands between other words.
        found = re.compile(rf"(?<!\w)(?:{pattern.removeprefix('^').removesuffix('$')})(?!\w)", re.IGNORECASE)
        yield from dict.fromkeys(_spelled(pattern, match.group()) for match in found.finditer(request))
    elif isinstance(shape, str) and shape in _FORMATS:
        yield from dict.fromkeys(match.group() for match in _FORMATS[shape].finditer(request))
    else:
        yield from _spans(request)


def _spelled(pattern: str, text: str) -> str:
    """The text in the case that the pattern wants."""
    return next((form for form in (text, text.upper(), text.lower()) if re.fullmatch(pattern, form)), text)


def _spans(request: str) -> list[str]:
    # Amounts and codes are other arguments' values: no text goes across them.
    request = _CODE.sub("\0", _AMOUNT.sub("\0", request))
    words = [(match.start(), match.end()) for match in _WORD.finditer(request)]
    spans = (
        request[words[first][0] : words[first + length - 1][1]].strip(_EDGES)
        for length in range(1, LONGEST_SPAN + 1)
        for first in range(len(words) - length + 1)
    )
    return [span for span in dict.fromkeys(spans) if span and _is_strong(span)][:MOST_SPANS]


def _is_strong(span: str) -> bool:
    words = span.casefold().split()
    return words[0] not in _WEAK and words[-1] not in _WEAK and not _NUMBER.fullmatch(span) and "\0" not in span


def _numbers(request: str) -> list[float]:
    return list(dict.fromkeys(float(match.group().replace(",", "")) for match in _NUMBER.finditer(request)))


def _choice(values: Sequence[JSON]) -> dict[str, JSON] | None:
    return {"enum": list(values)} if values else None


def _says(request: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}", request, re.IGNORECASE) is not None


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    target = schema.get("$ref")
    if isinstance(target, str):
        return definitions.get(target.rsplit("/", 1)[-1], {})
    return schema


def _is_plain_text(argument: Schema, definitions: Mapping[str, Schema]) -> bool:
    """Whether any words would do: such an optional argument is left out, since nothing tells that it was meant."""
    schema = _resolved(argument, definitions)
    branches = cast(Sequence[Schema], schema.get("anyOf", schema.get("oneOf", [schema])))
    return all(
        branch.get("type") in ("string", "null") and not {"pattern", "enum", "const", "format"} & branch.keys()
        for branch in (_resolved(branch, definitions) for branch in branches)
    )

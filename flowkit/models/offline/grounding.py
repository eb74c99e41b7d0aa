"""Argument schemas rewritten from a request, so that a small model can only copy values out of it.

A weak model invents order numbers. Under a grounded schema it can't: what has a pattern or an enum keeps the matches
that the request holds, a number the numbers in it, a text a piece of its words. An optional argument that nothing
matches is left out; a required one is missing, and the user is asked for it.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flowkit.codec import JSON
from flowkit.models.offline.korean import find_statement, is_korean, strip_particle
from flowkit.models.offline.korean_numbers import COUNTERS
from flowkit.models.offline.request_phrases import VALUE, find_pieces, stem

Schema = Mapping[str, JSON]

_NUMBER = re.compile(r"(?<![\w.:-])-?\d+(?:[.,]\d{3})*(?:\.\d+)?(?![\w:-]*\d)")
_ASKS_FOR_ALL = re.compile(r"\b(?:question|sentence)s?\b", re.IGNORECASE)
"""What the description of an argument says that takes the whole request."""
_STATES_WHY = re.compile(r"(?:\A|_)(?:reason|why|comment|note|damage|problem|issue|symptom|complaint|fault)s?(?:_|\Z)")
"""The name of an argument that takes a clause as it was said."""
_UNIT_WORDS = {
    "won": "won 원 금액 krw",
    "day": "day 일수 며칠",
    "week": "week 주",
    "month": "month 개월 달",
    "night": "night 박",
    "hour": "hour 시간",
    "minute": "minute",
    "kg": "kg kilogram kilo 킬로",
    "g": "g gram 그램",
    "%": "% percent discount 할인율 퍼센트",
    "person": "person people guest seat member adult participant attendee visitor passenger head 명 인원 인원수 사람 사람수",
    "piece": "item piece count quantity amount number portion ticket copy unit seat time session lesson 개 수량 개수 회 횟수 매수",
}
"""Units of numbers, and the words of arguments that are counted in them."""
_UNIT_NAMES = {
    **dict.fromkeys(COUNTERS, "piece"),
    **dict.fromkeys(("people", "guest", "adult", "passenger"), "person"),
    "원": "won",
    "일": "day",
    "주": "week",
    "달": "month",
    "개월": "month",
    "박": "night",
    "시간": "hour",
    "분": "minute",
    "명": "person",
    "인": "person",
    "사람": "person",
    "매": "piece",
    "킬로": "kg",
    "키로": "kg",
    "그램": "g",
    "프로": "%",
    "퍼센트": "%",
}
"""Units and counters, by the names that `_UNIT_WORDS` has for them."""
_CONVERSIONS = {
    ("g", "kg"): 0.001,
    ("kg", "g"): 1000.0,
    ("week", "day"): 7.0,
    ("month", "day"): 30.0,
    ("hour", "minute"): 60.0,
    ("minute", "hour"): 1 / 60,
}
"""What a number in the first unit is multiplied by for an argument in the second; a month has thirty days."""
_LIMITS_AFTER = {
    "max": re.compile(r"\s*원?\s*(?:이하|미만|이내|까지|안쪽|밑)"),
    "min": re.compile(r"\s*원?\s*(?:이상|초과|넘는)"),
}
"""What stands behind a number that is a limit in Korean."""
_LIMITS = {
    "max": re.compile(
        r"\b(?:under|below|less than|at most|up to|cheaper than|no more than|maximum)\s*$", re.IGNORECASE
    ),
    "min": re.compile(r"\b(?:over|above|more than|at least|from|minimum)\s*$", re.IGNORECASE),
}
"""What stands before a number that is a limit."""
_BEGINNINGS = frozenset(
    ["start", "begin", "begins", "from", "since", "first", "checkin", "check_in", "시작", "시작일", "부터"]
)
_ENDINGS = frozenset(
    ["end", "ends", "until", "to", "till", "through", "last", "checkout", "check_out", "종료", "종료일", "끝", "까지"]
)
"""Words in the names of arguments that begin and end a span."""
_PHONE = re.compile(r"(?<![\d-])(01\d|02|0[3-6]\d)[-. ]?(\d{3,4})[-. ]?(\d{4})(?![\d-])")
_FORMATS = {
    "date": re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
    "date-time": re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?"),
    "time": re.compile(r"\b\d{2}:\d{2}(?::\d{2})?\b"),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "uuid": re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
}


@dataclass(frozen=True, slots=True)
class Grounded:
    """A schema that allows only values from the request; `missing` names required arguments without a value.

    `values` counts the arguments that are numbers, codes, dates or choices rather than words, `codes` those of a pattern.
    """

    schema: dict[str, JSON]
    missing: tuple[str, ...] = ()
    values: int = 0
    codes: int = 0


Rank = Callable[[str, Sequence[str]], Sequence[str]]
"""Orders texts by how well they fit a description, the best first."""


def ground(
    schema: Schema, request: str, rank: Rank | None = None, known: Collection[str] = (), quoted: Collection[str] = ()
) -> Grounded:
    """Ground the object schema of a tool's arguments in a request.

    `rank` chooses between its pieces where an argument is described; `known` are the tool's own words, and
    `quoted` those of the requests in its description.
    """
    definitions = cast(Mapping[str, Schema], schema.get("$defs", {}))
    required = set(cast(Sequence[str], schema.get("required", ())))
    properties: dict[str, JSON] = {}
    missing: list[str] = []
    values = codes = 0
    for name, argument in cast(Mapping[str, Schema], schema.get("properties", {})).items():
        is_text = _is_plain_text(argument, definitions)
        if is_text:
            # An optional text is left out, since nothing tells that it was meant.
            grounded = _ground_text(name, argument, request, rank, known, quoted) if name in required else None
        else:
            grounded = _ground(name, _resolved(argument, definitions), request, definitions, name in required)
            grounded = _keep_side(name, grounded, request)
        if grounded is not None:
            properties[name] = grounded
            values += not is_text
            codes += not is_text and "pattern" in _resolved(argument, definitions)
        elif name in required:
            missing.append(name)
    body: dict[str, JSON] = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return Grounded(body, tuple(missing), values, codes)


def _keep_side(name: str, grounded: dict[str, JSON] | None, request: str) -> dict[str, JSON] | None:
    """Keep, of several values, the one that begins a span for an argument that begins one, or the one that ends it."""
    values = cast(Sequence[JSON], grounded.get("enum", ())) if grounded else ()
    words = set(re.split(r"[\W_]+", name.casefold())) | {name.casefold()}
    if len(values) < 2 or not words & (_BEGINNINGS | _ENDINGS):
        return grounded
    ends = [value for value in values if _ends_span(str(value), request)]
    if words & _BEGINNINGS:
        return _choice([value for value in values if value not in ends][:1] or values[:1])
    return _choice(ends[-1:] or values[-1:])


def _ends_span(value: str, request: str) -> bool:
    said = re.escape(value)
    return re.search(rf"{said}\s*까지|\b(?:to|until|till|through)\s+{said}|[~–]\s*{said}", request) is not None


def _ground_text(
    name: str,
    argument: Schema,
    request: str,
    rank: Rank | None,
    known: Collection[str],
    quoted: Collection[str],
) -> dict[str, JSON] | None:
    """Ground a text in one piece of the request: all of it, the piece most like the description, or the longest."""
    described = str(argument.get("description", ""))
    if _ASKS_FOR_ALL.search(described):
        return _choice([request.strip(" ?.!")]) if request.strip() else None
    if is_korean(request) and _STATES_WHY.search(name):
        statement = find_statement(request) or find_statement(VALUE.sub(",", request), alone=True)
        return _choice([statement] if statement else [])
    pieces = find_pieces(request, known, quoted)
    if described and rank is not None and len(pieces) > 1:
        pieces = list(rank(f"{name.replace('_', ' ')}: {described}", pieces))
    return _choice(pieces[:1])


def _ground(
    name: str, schema: Schema, request: str, definitions: Mapping[str, Schema], required: bool
) -> dict[str, JSON] | None:
    """Return the schema of the request's values for this argument; None if there are none."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            # What describes the argument stands beside its branches.
            about: dict[str, JSON] = {"description": schema.get("description", "")}
            branches = (
                _ground(name, {**about, **_resolved(branch, definitions)}, request, definitions, required)
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
            numbers = _numbers(name, schema, request, required)
            return _choice([int(number) for number in numbers if number == int(number)])
        case "number":
            numbers = _numbers(name, schema, request, required)
            return _choice([int(number) if number == int(number) else number for number in numbers])
        case "array":
            items = _resolved(cast(Schema, schema.get("items", {})), definitions)
            grounded = _ground(name, items, request, definitions, required)
            return None if grounded is None else {"type": "array", "items": grounded, "minItems": 1, "maxItems": 4}
        case "string":
            return _choice(list(_texts(schema, request)))
        case _:
            return None


def _texts(schema: Schema, request: str) -> Iterator[str]:
    pattern, shape = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str):
        # The pattern is of the whole argument; in a request it stands between other words.
        found = re.compile(rf"(?<!\w)(?:{pattern.removeprefix('^').removesuffix('$')})(?!\w)", re.IGNORECASE)
        # Phone numbers are written with hyphens, spaces or neither, whatever the pattern wants.
        for text in (request, *(_PHONE.sub(form, request) for form in (r"\1-\2-\3", r"\1\2\3"))):
            matches = dict.fromkeys(_spelled(pattern, match.group()) for match in found.finditer(text))
            if matches:
                yield from matches
                return
    elif isinstance(shape, str) and shape in _FORMATS:
        yield from dict.fromkeys(match.group() for match in _FORMATS[shape].finditer(request))
    else:
        yield from find_pieces(request)[:1]


def _spelled(pattern: str, text: str) -> str:
    """Return the text in the case that the pattern requires."""
    return next((form for form in (text, text.upper(), text.lower()) if re.fullmatch(pattern, form)), text)


def _numbers(name: str, schema: Schema, request: str, required: bool) -> list[float]:
    """Find candidate numbers: those with the argument's unit, or for a required argument any number.

    A number with a unit is never one that is counted in another: "3박" are no guests.
    """
    said = re.split(r"\W+|_", f"{name} {schema.get('description', '')}")
    words = {stem(word) for word in said if word} | {strip_particle(word) for word in said if is_korean(word)}
    wanted = {unit for unit, names in _UNIT_WORDS.items() if words & set(names.split())}
    fitting: list[float] = []
    others: list[float] = []
    for match in _NUMBER.finditer(request):
        number = float(match.group().replace(",", ""))
        found = re.match(r"\s*([^\W\d_]+|%)", request[match.end() :])
        unit = None if found is None else _name_unit(found.group(1))
        is_limit = any(
            kind in words
            and (before.search(request, 0, match.start()) or _LIMITS_AFTER[kind].match(request, match.end()))
            for kind, before in _LIMITS.items()
        )
        factor = 1.0 if unit in wanted or unit in words or is_limit else _convert(unit, wanted)
        value = round(number * (factor or 1.0), 6)
        if not _is_in_range(value, schema):
            continue
        if factor is not None:
            fitting.append(value)
        elif unit not in _UNIT_WORDS or not wanted:
            others.append(value)
    return list(dict.fromkeys(fitting or (others if required else [])))


def _name_unit(word: str) -> str:
    """Name the unit that stands behind a number, without a particle."""
    named = _UNIT_NAMES.get(word) or _UNIT_NAMES.get(strip_particle(word) if is_korean(word) else stem(word))
    if named is None and is_korean(word):
        # "4 명이요", "3 인분만"
        named = next((_UNIT_NAMES[word[:size]] for size in (2, 1) if word[:size] in _UNIT_NAMES), None)
    return named or stem(word)


def _convert(unit: str | None, wanted: Collection[str]) -> float | None:
    return next((_CONVERSIONS[unit, other] for other in wanted if unit and (unit, other) in _CONVERSIONS), None)


def _is_in_range(number: float, schema: Schema) -> bool:
    limits = [schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")]
    least, above, most, below = (limit if isinstance(limit, (int, float)) else None for limit in limits)
    return (
        (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )


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
    """Return whether any words would fit: then an optional argument is left out, since nothing implies it."""
    schema = _resolved(argument, definitions)
    branches = cast(Sequence[Schema], schema.get("anyOf", schema.get("oneOf", [schema])))
    return all(
        branch.get("type") in ("string", "null") and not {"pattern", "enum", "const", "format"} & branch.keys()
        for branch in (_resolved(branch, definitions) for branch in branches)
    )

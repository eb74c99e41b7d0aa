"""Convert tool schemas to the form that a model's server accepts.

A tool's own schema is faithful: it says all that Python's types say. Servers that hold a model to a schema ("strict")
accept only a part of JSON Schema, so the schema is lowered for them, and the model's arguments are raised back before
validation. Lost constraints (a format, a length) are written into the description, and validation
still enforces the faithful schema. A schema that can't be lowered without losing values is sent unchanged, not
strict, with a note that explains why.

>>> lowered = lower({"type": "object", "properties": {"city": {"type": "string", "default": "Paris"}}})
>>> lowered.schema["required"], lowered.raise_arguments({"city": None})
(['city'], {})
"""

from typing import Literal, assert_never

from flowkit.codec import JSON
from flowkit.schema_paths import Schema
from flowkit.targets.conversions import SAME
from flowkit.targets.definitions import NotStrict
from flowkit.targets.lowering import Lowered, Lowering, Note, NoteKind
from flowkit.targets.strict import find_violations

Target = Literal["openai", "openai-strict", "openai-responses", "openai-responses-strict"]
"""Whom a tool is told to: Chat Completions or the Responses API, held to the schema or not."""

TARGETS: tuple[Target, ...] = ("openai", "openai-strict", "openai-responses", "openai-responses-strict")

__all__ = [
    "TARGETS",
    "Lowered",
    "Note",
    "NoteKind",
    "Target",
    "find_violations",
    "is_strict",
    "lower",
    "parse_target",
    "to_wire",
]


def lower(schema: Schema, target: Target = "openai-strict", *, strict: bool | None = None) -> Lowered:
    """Lower the schema to `target`; `strict`, the tool's own setting, overrides the target's.

    A schema that a strict target doesn't support stays unchanged and not strict; the last note explains why.
    """
    if not (is_strict(target) if strict is None else strict):
        return Lowered(schema, strict=False)
    lowering = Lowering(schema)
    try:
        lowered, conversion = lowering.run()
    except NotStrict as reason:
        return Lowered(schema, strict=False, notes=(*lowering.notes, Note("refused", reason.path, reason.text)))
    violations = find_violations(lowered)
    if violations:
        refused = (Note("refused", violation.path, violation.text) for violation in violations)
        return Lowered(schema, strict=False, notes=(*lowering.notes, *refused))
    return Lowered(
        lowered,
        strict=True,
        notes=tuple(lowering.notes),
        conversion=conversion if conversion.changes(set()) else SAME,
    )


def is_strict(target: Target) -> bool:
    """Return whether the target holds the model to the schema."""
    return target.endswith("-strict")


def parse_target(text: str) -> Target:
    """Parse the name of a target; raises `ValueError` with the known ones."""
    for target in TARGETS:
        if target == text:
            return target
    raise ValueError(f"the target is {text!r}, expected one of {', '.join(TARGETS)}")


def to_wire(name: str, description: str, lowered: Lowered, target: Target) -> dict[str, JSON]:
    """Make the tool's definition in a request: nested for Chat Completions, flat for the Responses API."""
    body: dict[str, JSON] = {"name": name, "description": description, "parameters": dict(lowered.schema)}
    match target:
        case "openai" | "openai-strict":
            return {"type": "function", "function": {**body, "strict": True} if lowered.strict else body}
        case "openai-responses" | "openai-responses-strict":
            # Left out, the Responses API makes a schema strict by itself, with no way back.
            return {"type": "function", **body, "strict": lowered.strict}
        case _:
            assert_never(target)

"""Report what an API changes or rejects in a tool's schema, and what the tool costs, before a model sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from flowkit.codec import dumps
from flowkit.schema_paths import Schema, subschemas
from flowkit.targets import Note, NoteKind, Target, lower, to_wire
from flowkit.targets.offers import offer_references
from flowkit.tools.schema.aliases import make_alias

Level = Literal["info", "warning", "error"]

CHARS_PER_TOKEN = 4
"""Of JSON in English, about; other scripts cost more."""

_CODES: dict[NoteKind, tuple[Level, str]] = {
    "lowered": ("info", "lowered"),
    "dropped": ("info", "only-described"),
    "default": ("warning", "default-out-of-reach"),
    "refused": ("warning", "not-strict"),
    "references": ("warning", "no-references"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing; `path` is a JSON pointer into the tool's schema, empty for the tool itself.

    An `error` means that the tool doesn't get what its author asked for, a `warning` that something is lost or
    slower than it need be, an `info` that something was done.
    """

    level: Level
    code: str
    text: str
    path: str = ""

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        return f"{self.level} {self.code}{where}: {self.text}"


class Lintable(Protocol):
    """The part of a tool that a lint reads."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> Schema: ...
    @property
    def own_checks(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def strict(self) -> bool | None: ...
    @property
    def declared_effect(self) -> bool: ...
    @property
    def accepts_references(self) -> bool: ...


def lint(tool: Lintable, target: Target = "openai-strict") -> list[Finding]:
    """Return all findings for one target: the worst first, then in the order of the schema."""
    lowered = lower(tool.parameters, target, strict=tool.strict)
    findings = [_read_note(note) for note in lowered.notes]
    if tool.accepts_references and lowered.strict:
        known = len(lowered.notes)
        findings.extend(_read_note(note) for note in offer_references(lowered).notes[known:])
        if "additional" in subschemas(lowered.schema, "properties").keys() - subschemas(tool.parameters, "properties"):
            text = "a field with a free name travels inside a list, where no reference can stand"
            findings.append(Finding("warning", "no-references", text, "/additionalProperties"))
    if tool.strict and not lowered.strict:
        findings.append(Finding("error", "strict-refused", "strict=True was asked for, and the schema can't be strict"))
    if not tool.declared_effect:
        text = (
            "no effect is declared, so it counts as a write: it waits for the end of the model's turn, is never cached, "
            "shared or tried again, and after a crash a person decides; if it changes nothing, say effect='read'"
        )
        findings.append(Finding("warning", "undeclared-effect", text))
    if not tool.description:
        findings.append(Finding("warning", "no-description", "the model sees only the name; write a docstring"))
    for name, schema in subschemas(tool.parameters, "properties").items():
        if not schema.get("description"):
            findings.append(Finding("info", "no-description", "told by its name and type alone", f"/properties/{name}"))
        if not schema.keys() - {"description", "default", "title", "examples"}:
            findings.append(Finding("warning", "untyped", "takes any value; give it a type", f"/properties/{name}"))
    if tool.parameters.get("additionalProperties") is True:
        text = "takes any argument; of a decorated function, let the decorator use functools.wraps"
        findings.append(Finding("warning", "untyped", text, "/additionalProperties"))
    for name, checks in tool.own_checks.items():
        text = f"checked by {', '.join(checks)} too, of which no schema tells; the description should"
        # Of a flattened tool the parameter isn't there, only its fields.
        path = f"/properties/{name}" if name in subschemas(tool.parameters, "properties") else ""
        findings.append(Finding("info", "own-check", text, path))
    alias = make_alias(tool.name)
    if alias != tool.name:
        findings.append(Finding("info", "alias", f"travels as {alias!r}"))
    tokens = len(dumps(to_wire(alias, tool.description, lowered, target))) // CHARS_PER_TOKEN
    findings.append(Finding("info", "size", f"about {tokens} tokens in every request"))
    levels: tuple[Level, ...] = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: levels.index(finding.level))


def _read_note(note: Note) -> Finding:
    level, code = _CODES[note.kind]
    return Finding(level, code, note.text, note.path)

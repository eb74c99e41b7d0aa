"""Write the TypeScript types of the events, `js/src/core/events.ts`, from the classes in `flowkit/events/kinds.py`.

    python scripts/web_types.py

A test fails when the file and the classes differ.
"""

import inspect
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flowkit.codec import JSON
from flowkit.events import kinds as events
from flowkit.messages import Usage

TARGET = Path(__file__).parent.parent / "js" / "src" / "core" / "events.ts"

SELDOM = ("cache_write_1h_tokens", "billed")
"""Fields of `Usage` that are told only where there is something to tell."""

HEAD = """\
// Written by scripts/web_types.py from flowkit/events/kinds.py; don't edit.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
"""


def write_types() -> str:
    """The text of the file: what all events share, an interface for each, and their union."""
    kinds = [kind for kind in vars(events).values() if inspect.isclass(kind) and issubclass(kind, events.Event)]
    told = [kind for kind in kinds if kind is not events.Event]
    parts = [HEAD, _interface(Usage, "Usage", [])]
    parts += [_interface(kind, kind.__name__, [f'type: "{kind.type}"']) for kind in told]
    union = "\n".join(f"  | {kind.__name__}" for kind in told)
    parts.append(
        f"/** Every event of this version; a reader passes over types and fields that it doesn't know. */\nexport type RunEvent =\n{union}\n"
    )
    return "\n".join(parts)


def _interface(kind: type[Any], name: str, first: list[str]) -> str:
    # A field's own annotation: `get_type_hints` would unfold what JSON is. Only a class's own name is a text.
    hints = {
        field.name: get_type_hints(kind)[field.name] if isinstance(field.type, str) else field.type
        for field in fields(kind)
    }
    lines = [*first, *(f"{name}{'?' if name in SELDOM else ''}: {_translate(hint)}" for name, hint in hints.items())]
    if getattr(kind, "long", None) is not None:
        lines.append("truncated?: number")  # the size of a value that was cut
    doc = inspect.cleandoc(kind.__doc__ or "").replace("`", "").splitlines()
    comment = "\n".join(["/**", *(f" * {line}".rstrip() for line in doc), " */"])
    return f"{comment}\nexport interface {name} {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def _translate(hint: Any) -> str:
    if hint == JSON:
        return "Json"
    plain = {str: "string", int: "number", float: "number", bool: "boolean", NoneType: "null", Usage: "Usage"}
    if isinstance(hint, type) and hint in plain:
        return plain[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in inner)
    if origin in (Union, UnionType):
        return " | ".join(map(_translate, inner))
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return f"{_translate(inner[0])}[]"
    raise TypeError(f"no TypeScript type for {hint!r}; add one to scripts/web_types.py")


if __name__ == "__main__":
    TARGET.write_text(write_types(), encoding="utf-8")

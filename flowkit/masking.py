"""Calls as people and models read them: their arguments as JSON, with secrets masked."""

from collections.abc import Collection, Mapping
from typing import cast

from flowkit.codec import JSON, dumps
from flowkit.references import SCALARS, Reference, format_pointer

MASK = "**********"

NOTE_LENGTH = 80
"""How much of an early result its `call.progress` shows."""


def show_arguments(arguments: Mapping[str, object], secrets: Collection[str] = ()) -> JSON:
    """Arguments as JSON; references stand as a model writes them."""
    if not secrets and SCALARS.issuperset(map(type, arguments.values())):
        return cast(JSON, arguments)
    return {name: MASK if name in secrets else _show(value) for name, value in arguments.items()}


def show_note(value: JSON) -> str:
    """The beginning of a result."""
    text = value if isinstance(value, str) else dumps(value).decode()
    return text if len(text) <= NOTE_LENGTH else text[: NOTE_LENGTH - 1] + "…"


def _show(value: object) -> JSON:
    if type(value) in SCALARS:
        return cast(JSON, value)
    if type(value) is Reference:
        return {"from_call": value.call_id, "path": format_pointer(value.path) if value.path else ""}
    if isinstance(value, (list, tuple)):
        return [_show(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        return {str(key): _show(item) for key, item in cast("Mapping[object, object]", value).items()}
    # Imported here: only Python values need it, and events are read where no tool is.
    from pydantic_core import to_jsonable_python

    return cast(JSON, to_jsonable_python(value, bytes_mode="base64", fallback=repr))

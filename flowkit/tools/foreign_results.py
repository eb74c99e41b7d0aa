"""What tools of other frameworks give besides JSON: their images, sound and files, as those of flowkit."""

import mimetypes
import sys
from typing import Any

from flowkit.media import Audio, File, Image


def read_result(value: Any) -> Any:
    """Return the result with the framework's media as flowkit's, which reach the model as such and not as text."""
    if value.__class__ in (list, tuple):
        items: list[Any] = list(value)
        read = [read_result(item) for item in items]
        # The same object where nothing changed: a result keeps its type.
        return value if all(new is old for new, old in zip(read, items, strict=True)) else read
    match str(value.__class__.__module__).partition(".")[0]:
        case "pydantic_ai":
            return _read_pydantic_ai(value)
        case "agents":
            return _read_openai_agents(value)
        case _:
            return value


def is_of(value: object, module: str, name: str) -> bool:
    """Return whether the value is of this class of the framework, whose package isn't imported for it."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _read_pydantic_ai(value: Any) -> Any:
    if is_of(value, "pydantic_ai.messages", "BinaryContent"):
        return _make(bytes(value.data), str(value.media_type))
    if is_of(value, "pydantic_ai.messages", "ImageUrl"):
        return Image(str(value.url))
    if is_of(value, "pydantic_ai.messages", "DocumentUrl"):
        return File(_find_name(str(value.url)), str(value.url))
    return value


def _read_openai_agents(value: Any) -> Any:
    if is_of(value, "agents.tool", "ToolOutputText"):
        return value.text
    if is_of(value, "agents.tool", "ToolOutputImage") and value.image_url:
        return Image(value.image_url, value.detail or "auto")
    if is_of(value, "agents.tool", "ToolOutputFileContent"):
        url = value.file_url or value.file_data
        if url and not url.startswith(("data:", "http")):
            url = f"data:{_guess(value.filename)};base64,{url}"
        if url:
            return File(value.filename or _find_name(url), url)
    return value


def _make(data: bytes, media_type: str) -> Image | Audio | File:
    if media_type.startswith("image/"):
        return Image.of(data, media_type)
    return Audio.of(data, media_type) if media_type.startswith("audio/") else File.of(data, "file", media_type)


def _find_name(url: str) -> str:
    """Find a file's name in its address."""
    return "file" if url.startswith("data:") else url.partition("?")[0].rstrip("/").rpartition("/")[2] or "file"


def _guess(name: str | None) -> str:
    return mimetypes.guess_type(name or "")[0] or "application/octet-stream"

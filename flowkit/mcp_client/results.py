"""Results of MCP calls as JSON values: images, audio and bytes are media of flowkit, which a model sees as such."""

import base64
import binascii
from typing import Any, cast
from urllib.parse import quote

from flowkit.codec import JSON
from flowkit.media import GONE, Audio, File, Image, Media, fill_media, name_media, write_media

BYTES = "application/octet-stream"


def read_result(result: Any) -> JSON:
    """Read a call's result (`mcp_types.CallToolResult`): the structured value, or the blocks of its content.

    A single text stays a string and isn't parsed, since "007" isn't 7. Several blocks become a list, no block None. With a
    structured value, only images, audio and bytes are added.
    """
    if result.structured_content is None:
        blocks = [read_block(block) for block in result.content]
        return blocks[0] if len(blocks) == 1 else blocks or None
    # The value's text twin says the same for clients that can't read it.
    structured = cast(JSON, result.structured_content)
    media = [read_block(block) for block in result.content if _holds_bytes(block)]
    return {"result": structured, "media": media} if media else structured


def read_text(result: Any) -> str:
    """Read the texts of a result, as an error's message has them."""
    return "\n".join(block.text for block in result.content if block.type == "text")


def read_block(block: Any) -> JSON:
    """Read one block of content."""
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            kind = block.mime_type or ("image/png" if block.type == "image" else "audio/wav")
            data = _decode(block.data)
            if data is None:
                return {"type": block.type, "mimeType": kind, "error": "its base64 can't be read"}
            return write_media(Image.of(data, kind) if block.type == "image" else Audio.of(data, kind))
        case "resource_link":
            fields = {"uri": block.uri, "name": block.name, "title": block.title, "mimeType": block.mime_type}
            return {"type": "resource_link", **{name: value for name, value in fields.items() if value is not None}}
        case "resource":
            return read_contents(block.resource)
        case kind:
            return {"type": str(kind)}


def read_contents(contents: Any) -> JSON:
    """Read a resource: its text, or its bytes as an image, audio or a file with its name."""
    text = getattr(contents, "text", None)
    if isinstance(text, str):
        return {"type": "resource", "uri": contents.uri, "text": text}
    data = _decode(getattr(contents, "blob", ""))
    kind = contents.mime_type or BYTES
    if data is None:
        return {"type": "resource", "uri": contents.uri, "mimeType": kind, "error": "its base64 can't be read"}
    if kind.startswith("image/"):
        return write_media(Image.of(data, kind))
    if kind.startswith("audio/"):
        return write_media(Audio.of(data, kind))
    name = str(contents.uri).partition("?")[0].rstrip("/").rpartition("/")[2]
    return write_media(File.of(data, name or "file", kind))


def write_block(media: Media) -> Any:
    """Write a result of an app's tool as a content block; addresses and deleted data are written as links."""
    from mcp_types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, ResourceLink, TextContent

    try:
        data = base64.b64encode(media.data).decode()
    except ValueError:
        filled = fill_media(media)
        if filled is None or not filled.address:
            return TextContent(text=f"[{name_media(media, 1)}: {GONE}]")
        return ResourceLink(name=type(media).__name__.lower(), uri=filled.address)
    match media:
        case Image():
            return ImageContent(data=data, mime_type=media.media_type)
        case Audio():
            return AudioContent(data=data, mime_type=media.media_type)
        case File(name=name):
            uri = f"flowkit://files/{quote(name or 'file')}"
            return EmbeddedResource(resource=BlobResourceContents(uri=uri, mime_type=media.media_type, blob=data))


def _holds_bytes(block: Any) -> bool:
    return block.type in ("image", "audio") or (block.type == "resource" and hasattr(block.resource, "blob"))


def _decode(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None

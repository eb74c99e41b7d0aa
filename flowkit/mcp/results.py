"""Results of MCP calls as JSON values, with no bytes in them."""

from typing import Any, cast

from flowkit.codec import JSON


def read_result(result: Any) -> JSON:
    """Read what a call gave (`mcp_types.CallToolResult`): the structured value, or the blocks of its content.

    One text is a text and never parsed, since "007" isn't 7; several blocks are a list; no block is None.
    """
    if result.structured_content is not None:
        # Its text twin says the same for clients that can't read it.
        return cast(JSON, result.structured_content)
    blocks = [read_block(block) for block in result.content]
    return blocks[0] if len(blocks) == 1 else blocks or None


def read_text(result: Any) -> str:
    """Read the texts of a result, as an error's message has them."""
    return "\n".join(block.text for block in result.content if block.type == "text")


def read_block(block: Any) -> JSON:
    """Read one block of content; of an image, audio or other bytes only what it is and how large."""
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            return _describe_bytes(block.type, block.mime_type, block.data)
        case "resource_link":
            fields = {"uri": block.uri, "name": block.name, "title": block.title, "mimeType": block.mime_type}
            return {"type": "resource_link", **{name: value for name, value in fields.items() if value is not None}}
        case "resource":
            return read_contents(block.resource)
        case kind:
            return {"type": str(kind)}


def read_contents(contents: Any) -> JSON:
    """Read what a resource holds: its text, or what its bytes are."""
    text = getattr(contents, "text", None)
    if isinstance(text, str):
        return {"type": "resource", "uri": contents.uri, "text": text}
    described = _describe_bytes("resource", contents.mime_type, getattr(contents, "blob", ""))
    return {**described, "uri": contents.uri}


def _describe_bytes(kind: str, mime_type: str | None, encoded: str) -> dict[str, JSON]:
    # Base64: four characters for three bytes.
    size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    return {"type": kind, "mimeType": mime_type or "application/octet-stream", "bytes": max(0, size)}

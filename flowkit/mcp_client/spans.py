"""What the span of a call says of MCP, where flowkit's telemetry records it; the `mcp` package makes its own below."""

from typing import Any
from urllib.parse import urlsplit

METHOD = "mcp.method.name"
PROTOCOL_VERSION = "mcp.protocol.version"
TRANSPORT = "network.transport"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
SERVER_NAME = "flowkit.mcp.server"
SERVER_TOOL = "flowkit.mcp.tool"

OURS = "flowkit"


def find_span() -> Any:
    """Find the current span; None where nothing is recorded, and where it isn't flowkit's: the app's stay as they are."""
    from opentelemetry.trace import get_current_span

    span = get_current_span()
    if not span.is_recording() or getattr(getattr(span, "instrumentation_scope", None), "name", None) != OURS:
        return None
    return span


def mark_span(span: Any, server: str, where: str, tool: str, protocol_version: str) -> None:
    """Mark a span as a call of this server's tool.

    `where` is a command or an address without secrets. A session's id isn't shown: who has it may use the session.
    """
    span.set_attribute(METHOD, "tools/call")
    span.set_attribute(PROTOCOL_VERSION, protocol_version)
    span.set_attribute(SERVER_NAME, server)
    span.set_attribute(SERVER_TOOL, tool)
    if "://" not in where:
        span.set_attribute(TRANSPORT, "pipe")
        return
    parts = urlsplit(where)
    span.set_attribute(TRANSPORT, "tcp")
    span.set_attribute(SERVER_ADDRESS, parts.hostname or "")
    span.set_attribute(SERVER_PORT, parts.port or (443 if parts.scheme == "https" else 80))

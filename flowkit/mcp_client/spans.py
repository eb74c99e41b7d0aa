"""What the span of a call says of MCP, where flowkit's telemetry records it; the `mcp` package makes its own below."""

from urllib.parse import urlsplit

METHOD = "mcp.method.name"
PROTOCOL_VERSION = "mcp.protocol.version"
TRANSPORT = "network.transport"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
SERVER_NAME = "flowkit.mcp.server"
SERVER_TOOL = "flowkit.mcp.tool"

OURS = "flowkit"


def mark_span(server: str, where: str, tool: str, protocol_version: str) -> None:
    """Mark the current span as a call of this server's tool; do nothing where it isn't a span of flowkit's.

    `where` is a command or an address without secrets. A session's id isn't shown: who has it may use the session.
    """
    from opentelemetry.trace import get_current_span

    span = get_current_span()
    if not span.is_recording() or getattr(getattr(span, "instrumentation_scope", None), "name", None) != OURS:
        return
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

"""MCP (Model Context Protocol): offer agents, recipes and tools to its hosts."""

from flowkit.mcp.http import mcp_app

__all__ = ["mcp_app"]

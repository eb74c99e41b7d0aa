"""MCP (Model Context Protocol): use the tools of MCP servers, and offer agents, recipes and tools as one."""

from flowkit.mcp.http import mcp_app
from flowkit.mcp.tools import MCPTools

__all__ = ["MCPTools", "mcp_app"]

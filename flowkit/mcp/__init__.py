"""MCP (Model Context Protocol): use the tools of MCP servers, and offer agents, recipes and tools as one."""

from flowkit.mcp.tools import MCPTools

__all__ = ["MCPTools"]

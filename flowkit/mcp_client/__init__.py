"""MCP (Model Context Protocol): use the tools of MCP servers."""

from flowkit.mcp_client.tools import MCPTools

__all__ = ["MCPTools"]

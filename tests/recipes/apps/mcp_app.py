"""An MCP server as in the recipe, with one tool that thinks."""

import asyncio
import os

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

server = MCPServer("recipe")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers, after a while."""
    await asyncio.sleep(float(os.environ["SILENCE"]))
    return a + b


server.run(
    "streamable-http",
    port=int(os.environ["PORT"]),
    transport_security=TransportSecuritySettings(allowed_hosts=["mcp.localhost:*"]) if os.environ["ALLOW"] else None,
)

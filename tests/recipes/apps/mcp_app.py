"""An MCP server as in the recipe, with one tool that thinks."""

import asyncio
import os

import page
from mcp.server.mcpserver import MCPServer

server = MCPServer("recipe")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers, after a while."""
    await asyncio.sleep(float(os.environ["SILENCE"]))
    return a + b


class Runner:
    """Stands in for the server in the recipe: on this test's port."""

    def run(self, transport, *, port, transport_security):
        server.run(transport, port=int(os.environ["PORT"]), transport_security=transport_security)


if os.environ["ALLOW"]:
    page.run("TransportSecuritySettings", server=Runner())
else:
    server.run("streamable-http", port=int(os.environ["PORT"]))

"""List the tools of the server at a URL and call one: in the mode that is given, which may keep a stream open."""

import asyncio
import sys

import localhost_names  # noqa: F401
from mcp import Client


async def main(url, mode):
    async with Client(url, mode=mode) as client:
        tools = await client.list_tools()
        result = await client.call_tool("add", {"a": 40, "b": 2})
        print([tool.name for tool in tools.tools], result.content[0].text, flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))

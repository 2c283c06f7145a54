"""A language model's server that thinks before it goes on: as an event stream, and as lines of JSON."""

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


async def _tokens(silence: float) -> AsyncIterator[bytes]:
    yield b"data: one\n\n"
    await asyncio.sleep(silence)
    yield b"data: two\n\n"


async def answer(request: Request) -> StreamingResponse:
    silence = float(request.query_params["silence"])
    return StreamingResponse(_tokens(silence), media_type=request.query_params["type"])


app = Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])

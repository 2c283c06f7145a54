"""The two reverse proxies that one would write first in Python, as short as they may be: neither logs nor counts.

Run as `uvicorn alternatives:with_httpx` or `alternatives:with_aiohttp`, with the upstream's URL in `UPSTREAM`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp
    import httpx

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Pairs = list[tuple[bytes, bytes]]

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:9000")
_HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
_clients: dict[str, Any] = {}


async def with_httpx(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass requests on with a stock `httpx.AsyncClient`."""
    if scope["type"] != "http":
        return
    client = _httpx_client()
    request = client.build_request(
        scope["method"], _url(scope), headers=_end_to_end(scope["headers"]), content=_content(scope, receive)
    )
    response = await client.send(request, stream=True)
    try:
        await _start(send, response.status_code, response.headers.raw)
        async for piece in response.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        await response.aclose()
    await send({"type": "http.response.body"})


async def with_aiohttp(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass requests on with an `aiohttp.ClientSession`."""
    if scope["type"] != "http":
        return
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in _end_to_end(scope["headers"])]
    async with _aiohttp_session().request(
        scope["method"], _url(scope), headers=headers, data=_content(scope, receive), allow_redirects=False
    ) as response:
        await _start(send, response.status, response.raw_headers)
        async for piece in response.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


def _httpx_client() -> httpx.AsyncClient:
    if "httpx" not in _clients:
        import httpx  # noqa: PLC0415  one of the two is enough

        _clients["httpx"] = httpx.AsyncClient()
    client: httpx.AsyncClient = _clients["httpx"]
    return client


def _aiohttp_session() -> aiohttp.ClientSession:
    if "aiohttp" not in _clients:
        import aiohttp  # noqa: PLC0415  not a dependency of this project

        _clients["aiohttp"] = aiohttp.ClientSession(auto_decompress=False)
    session: aiohttp.ClientSession = _clients["aiohttp"]
    return session


def _url(scope: Scope) -> str:
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    return UPSTREAM + str(target, "latin-1")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Pairs:
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def _content(scope: Scope, receive: Receive) -> AsyncIterator[bytes] | None:
    framed = any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])
    return _body(receive) if framed else None


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


async def _start(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _end_to_end(headers)})

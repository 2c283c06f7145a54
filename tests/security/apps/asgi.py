"""The application for ASGI servers, with a WebSocket that sends back what it is sent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from who import LATE_SECONDS, Request

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await {"lifespan": _lifespan, "websocket": _websocket, "http": _http}[scope["type"]](scope, receive, send)


async def _http(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    target = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    if scope["query_string"] and "?" not in target:
        target += "?" + scope["query_string"].decode("latin-1")
    request = Request(scope["method"], target, lambda name: fields.get(name.lower(), ""))
    content = request.answer(await _body(receive) if request.reads_body else b"")
    headers = [(b"content-type", b"application/json")]
    if not request.late and request.status not in {204, 304}:
        headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": request.status, "headers": headers})
    if request.late:
        half = len(content) // 2
        await send({"type": "http.response.body", "body": content[:half], "more_body": True})
        await asyncio.sleep(LATE_SECONDS)
        content = content[half:]
    await send({"type": "http.response.body", "body": content})


async def _lifespan(_: object, receive: Receive, send: Send) -> None:
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


async def _websocket(_: object, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text") or ""})


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if event["type"] != "http.request" or not event.get("more_body"):
            return body

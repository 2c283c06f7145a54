"""A Starlette application that says where it believes to live."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


async def where(request: Request) -> JSONResponse:
    return JSONResponse({"here": str(request.url_for("where")), "root_path": request.scope["root_path"]})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


app = Starlette(routes=[Route("/items/", where, name="where"), WebSocketRoute("/echo", echo)])

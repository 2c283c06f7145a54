"""Starts the application on a server that has no command line for what we need: `start.py SERVER PORT`."""

import asyncio
import sys

from who import LATE_SECONDS, Request


def uvicorn_without_websockets(port: int) -> None:
    import uvicorn

    uvicorn.run("asgi:app", port=port, http="httptools", ws="none", log_level="error", server_header=False)


def waitress(port: int) -> None:
    import waitress
    from wsgi import app

    waitress.serve(app, host="127.0.0.1", port=port, threads=8)


def cheroot(port: int) -> None:
    from cheroot.wsgi import Server
    from wsgi import app

    Server(("127.0.0.1", port), app, numthreads=16, request_queue_size=128).start()


def werkzeug(port: int) -> None:
    from werkzeug.serving import WSGIRequestHandler, run_simple
    from wsgi import app

    class Silent(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            """Stay silent."""

    run_simple("127.0.0.1", port, app, threaded=True, request_handler=Silent)


def aiohttp(port: int) -> None:
    from aiohttp import web

    async def websocket(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(message.data)
        return answer

    async def handler(http: web.Request) -> web.StreamResponse:
        if http.path == "/socket":
            return await websocket(http)
        request = Request(http.method, http.raw_path, lambda name: http.headers.get(name, ""))
        content = request.answer(await http.read() if request.reads_body else b"")
        if not request.late:
            return web.Response(status=request.status, body=content, content_type="application/json")
        answer = web.StreamResponse(status=request.status)
        await answer.prepare(http)
        half = len(content) // 2
        await answer.write(content[:half])
        await asyncio.sleep(LATE_SECONDS)
        await answer.write(content[half:])
        return answer

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", handler)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


def tornado(port: int) -> None:
    from tornado import web, websocket

    class Who(web.RequestHandler):
        SUPPORTED_METHODS = (*web.RequestHandler.SUPPORTED_METHODS, "PROPFIND")  # type: ignore[assignment]

        async def get(self) -> None:
            http = self.request
            request = Request(http.method or "", http.uri or "", lambda name: http.headers.get(name, ""))
            content = request.answer(http.body if request.reads_body else b"")
            self.set_status(request.status)
            if request.status in {204, 304}:
                return
            self.set_header("Content-Type", "application/json")
            half = len(content) // 2 if request.late else 0
            if half:
                self.write(content[:half])
                await self.flush()
                await asyncio.sleep(LATE_SECONDS)
            self.write(content[half:])

        head = post = put = delete = options = patch = propfind = get

    class Echo(websocket.WebSocketHandler):
        def check_origin(self, origin: str) -> bool:
            return True

        async def on_message(self, message: str | bytes) -> None:
            await self.write_message(message)

    async def serve() -> None:
        web.Application([("/socket", Echo), (".*", Who)], log_function=lambda _: None).listen(port, "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))

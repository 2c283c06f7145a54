"""An admin listener that answers what a test wants."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

ROUTES = {
    "generation": 3,
    "routes": [
        {
            "name": "api",
            "hosts": ["api.localhost"],
            "path": "/v1",
            "methods": ["GET"],
            "headers": {"x-a": "b"},
            "upstream": "api",
            "targets": [
                {"url": "http://a:1", "weight": 1, "up": True},
                {"url": "http://b:1", "weight": 2, "up": False},
                {"url": "http://c:1", "weight": 1, "up": None},
            ],
            "owner": "me\x1b[2J",
            "respond": None,
        },
        {"name": "ping", "hosts": ["*"], "path": "/ping", "respond": {"status": 404}, "upstream": None, "targets": []},
    ],
}


STATUS = {
    "version": "1.2.3",
    "env": "dev",
    "generation": 3,
    "uptime_s": 93784.5,
    "state": "running",
    "pid": 77,
    "workers": [
        {
            "slot": 0,
            "pid": 78,
            "state": "ready",
            "generation": 3,
            "connections": 14,
            "in_flight": 2,
            "websockets": 1,
            "restarts": 0,
        }
    ],
    "upstreams": [
        {
            "name": "api",
            "targets": [
                {
                    "url": f"http://{name}:1",
                    "in_flight": 1,
                    "connections_active": 1,
                    "connections_idle": 4,
                    "up": up,
                    "failing_since": since,
                }
                for name, up, since in (("a", True, None), ("b", False, "2026-11-21T06:00:00Z"), ("c", None, None))
            ],
        }
    ],
    "last_reload": {"result": "failed", "at": "2026-11-21T06:00:00Z", "generation": 3, "errors": ["x.yaml:1:1: no"]},
}


class Admin:
    """An admin listener that answers what a test wants, and records what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {
            "GET /api/routes": (200, ROUTES),
            "GET /api/status": (200, STATUS),
            "POST /api/reload": (200, {"result": "ok", "generation": 4}),
            "POST /api/drain": (202, {"state": "draining"}),
        }
        self.tokens: list[str | None] = []
        self.hosts: list[str | None] = []
        self.address = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        admin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                admin.tokens.append(self.headers.get("Authorization"))
                admin.hosts.append(self.headers.get("Host"))
                status, answer = admin.answers[f"{self.command} {self.path}"]
                body = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

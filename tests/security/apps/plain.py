"""The application on Python's http.server, written as its handlers usually are: only POST and PUT look for a body."""

import socketserver
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from who import Request


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(reads=False)

    do_HEAD = do_DELETE = do_OPTIONS = do_PROPFIND = do_GET

    def do_POST(self) -> None:
        self._answer(reads=True)

    do_PUT = do_PATCH = do_POST

    def _answer(self, *, reads: bool) -> None:
        request = Request(self.command, self.path, lambda name: self.headers.get(name, ""))
        length = int(self.headers.get("Content-Length", "0")) if reads and request.reads_body else 0
        content = request.answer(self.rfile.read(length))
        self.send_response(request.status)
        self.send_header("Content-Type", "application/json")
        if request.status not in {204, 304}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for piece in request.pieces(content):
            self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without asking who we are by name
        self.server_name, self.server_port = "localhost", self.server_address[1]


def main(port: str, certificate: str = "") -> None:
    server = Server(("127.0.0.1", int(port)), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

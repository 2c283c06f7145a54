"""The application for WSGI servers: it does not look at the method, as many do not."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from who import REASONS, Request


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    def field(name: str) -> str:
        return str(environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    request = Request(environ["REQUEST_METHOD"], target, field)
    content = request.answer(_body(environ) if request.reads_body else b"")
    start_response(f"{request.status} {REASONS[request.status]}", [("Content-Type", "application/json")])
    return _streamed(request, content) if request.late else [content]


def _body(environ: dict[str, Any]) -> bytes:
    if environ.get("wsgi.input_terminated"):
        return bytes(environ["wsgi.input"].read())
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower() and not environ.get("CONTENT_LENGTH"):
        return bytes(environ["wsgi.input"].read())
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _streamed(request: Request, content: bytes) -> Iterator[bytes]:
    yield from request.pieces(content)

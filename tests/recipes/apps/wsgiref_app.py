"""A form's server as `manage.py runserver` is one: wsgiref, which knows no body without a length."""

import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import make_server


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()

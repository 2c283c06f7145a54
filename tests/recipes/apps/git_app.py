"""git's own server program, as a WSGI application; GIT_PROJECT_ROOT says where the repositories are."""

import os
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

_PASSED = (
    "CONTENT_TYPE",
    "HTTP_CONTENT_ENCODING",
    "HTTP_GIT_PROTOCOL",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REQUEST_METHOD",
)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    variables = {name: environ[name] for name in _PASSED if name in environ}
    variables |= {"CONTENT_LENGTH": str(len(body)), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "ann"}
    command = ("git", "http-backend")
    done = subprocess.run(command, input=body, capture_output=True, env={**os.environ, **variables}, check=True)
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head.decode().splitlines())]
    status = next((value for name, value in fields if name == "Status"), "200 OK")
    start_response(status, [field for field in fields if field[0] != "Status"])
    return [content]

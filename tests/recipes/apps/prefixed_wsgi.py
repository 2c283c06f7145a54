"""A WSGI application that says where it believes to live, as Flask does with `ProxyFix`."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import waitress
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Request, Response


@Request.application
def where(request: Request) -> Response:
    asked = {"here": request.url, "root": request.root_url, "client": request.remote_addr}
    told = {name: request.headers.get(name) for name in ("X-Real-IP", "X-Forwarded-User", "Remote-User")}
    return Response(json.dumps({**asked, **told}))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return ProxyFix(where, x_for=int(os.environ.get("PROXIES", "1")), x_proto=1, x_host=1, x_prefix=1)(
        environ, start_response
    )


if __name__ == "__main__":
    waitress.serve(app, listen=f"127.0.0.1:{sys.argv[1]}", clear_untrusted_proxy_headers=False)

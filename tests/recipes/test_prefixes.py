"""Applications that live below a prefix that the gateway cuts off."""

import json

import pytest

from tests.recipes.support import Visitor, python, recipe, running, virtual_environment
from tests.support import free_port

TOOLS = "tools.localhost"


def test_fastapi_with_the_middleware_of_the_page_has_right_links_and_documentation() -> None:
    binaries = virtual_environment("FASTAPI", "fastapi uvicorn")
    port = free_port()
    server = running(port, binaries / "uvicorn", "fastapi_app:prefixed", "--port", str(port))
    with server, recipe(port, "api") as gateway:
        _check_fastapi(Visitor(gateway, TOOLS))


def test_fastapi_told_by_uvicorn_has_right_links_and_documentation() -> None:
    binaries = virtual_environment("FASTAPI", "fastapi uvicorn")
    port = free_port()
    server = running(port, binaries / "uvicorn", "fastapi_app:plain", "--port", str(port), "--root-path", "/v1")
    with server, recipe(port, "api") as gateway:
        _check_fastapi(Visitor(gateway, TOOLS))


def _check_fastapi(visitor: Visitor) -> None:
    assert visitor.get("/v1").status == 308
    assert "url: '/v1/openapi.json'" in visitor.get("/v1/docs").text
    described = json.loads(visitor.get("/v1/openapi.json").body)
    assert (described["servers"], list(described["paths"])) == ([{"url": "/v1"}], ["/items/"])
    assert json.loads(visitor.get("/v1/items/").body) == {"here": f"http://{visitor.host}/v1/items/"}
    redirected = visitor.get("/v1/items")
    assert (redirected.status, redirected.headers["Location"]) == (307, f"http://{visitor.host}/v1/items/")


def test_uvicorn_with_a_root_path_has_right_links_and_websockets() -> None:
    port = free_port()
    command = ("-m", "uvicorn", "prefixed_asgi:app", "--port", str(port), "--root-path", "/v1")
    with running(port, *python(*command)), recipe(port, "api") as gateway:
        visitor = Visitor(gateway, TOOLS)
        said = json.loads(visitor.get("/v1/items/").body)
        assert said == {"here": f"http://{visitor.host}/v1/items/", "root_path": "/v1"}
        assert visitor.get("/v1/items").headers["Location"] == f"http://{visitor.host}/v1/items/"
        visitor.websocket("/v1/echo").close()


def test_werkzeug_behind_waitress_believes_prefix_host_and_client() -> None:
    port = free_port()
    with running(port, *python("prefixed_wsgi.py", str(port))), recipe(port, "api") as gateway:
        visitor = Visitor(gateway, TOOLS)
        said = json.loads(visitor.get("/v1/items?x=1").body)
        assert said["here"] == f"http://{visitor.host}/v1/items?x=1"
        assert said["root"] == f"http://{visitor.host}/v1/"
        assert said["client"] == said["X-Real-IP"] == "127.0.0.1"
        assert visitor.get("/v1").status == 308


def test_flask_behind_waitress_has_right_links_and_redirects() -> None:
    binaries = virtual_environment("FLASK", "flask waitress")
    port = free_port()
    with running(port, binaries / "python", "flask_app.py", str(port)), recipe(port, "api") as gateway:
        visitor = Visitor(gateway, TOOLS)
        here = f"http://{visitor.host}/v1"
        said = json.loads(visitor.get("/v1/items/").body)
        assert said == {"here": f"{here}/items/", "root": f"{here}/", "client": "127.0.0.1"}
        assert visitor.get("/v1/items").headers["Location"] == f"{here}/items/"
        assert visitor.get("/v1/").headers["Location"] == "/v1/items/"


@pytest.mark.parametrize("trusted", [True, False])
def test_only_the_balancer_may_say_who_is_logged_in(trusted: bool) -> None:
    port = free_port()
    server = {"server": {"trusted_proxies": ["127.0.0.1"] if trusted else []}}
    application = running(port, *python("prefixed_wsgi.py", str(port)), environment={"PROXIES": "2"})
    with application, recipe(port, "wiki", **server) as gateway:
        fields = {"X-Forwarded-User": "ann", "Remote-User": "eve", "X-Forwarded-For": "203.0.113.9"}
        said = json.loads(Visitor(gateway, "wiki.localhost").get("/", fields).body)
        told = (said["X-Forwarded-User"], said["X-Real-IP"], said["Remote-User"])
        assert said["client"] == said["X-Real-IP"]
        assert told == (("ann", "203.0.113.9", None) if trusted else (None, "127.0.0.1", None))

"""Servers that know no body without a length."""

import pytest

from tests.recipes.support import Visitor, python, recipe, running, virtual_environment
from tests.support import free_port


@pytest.mark.parametrize("is_set", [True, False])
def test_a_chunked_upload_reaches_wsgiref_with_a_length(is_set: bool) -> None:
    port = free_port()
    changes = {} if is_set else {"routes": {"plain": {"buffer_body": None}}}
    server = running(port, *python("wsgiref_app.py", str(port)))
    with server, recipe(port, "plain", **changes) as gateway:
        answer = Visitor(gateway, "plain.localhost").ask("POST", "/", iter([b"one ", b"two"]))
        assert answer.body == (b"one two" if is_set else b"")


@pytest.mark.parametrize("is_set", [True, False])
def test_a_chunked_upload_reaches_djangos_runserver_with_a_length(is_set: bool) -> None:
    binaries = virtual_environment("DJANGO", "django gunicorn")
    port = free_port()
    code = "import django_app; from django.core.management import call_command as call; "
    code += f"call('runserver', '127.0.0.1:{port}', use_reloader=False)"
    buffered = {} if is_set else {"buffer_body": None}
    changes = {"server": {"trusted_proxies": ["127.0.0.1"]}, "routes": {"plain": {"host": "*", **buffered}}}
    with running(port, binaries / "python", "-c", code), recipe(port, "plain", **changes) as gateway:
        visitor = Visitor(gateway, "shop.example.com", {"X-Forwarded-Proto": "https"})
        answer = visitor.ask("POST", "/upload", iter([b"one ", b"two"]))
        assert (answer.status, answer.body) == (200, b"one two" if is_set else b"")

"""Servers that know no body without a length."""

import pytest

from tests.recipes.support import Visitor, python, recipe, running
from tests.support import free_port


@pytest.mark.parametrize("is_set", [True, False])
def test_a_chunked_upload_reaches_wsgiref_with_a_length(is_set: bool) -> None:
    port = free_port()
    changes = {} if is_set else {"routes": {"plain": {"buffer_body": None}}}
    server = running(port, *python("wsgiref_app.py", str(port)))
    with server, recipe(port, "plain", **changes) as gateway:
        answer = Visitor(gateway, "plain.localhost").ask("POST", "/", iter([b"one ", b"two"]))
        assert answer.body == (b"one two" if is_set else b"")

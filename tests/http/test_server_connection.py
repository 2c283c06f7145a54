"""When a connection to a target may carry another request."""

import pytest

from tests.benchmarks.inmemory import Loopback

REQUEST = b"POST /u HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 5\r\n\r\nhello"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("unsent", [0, 100])
def test_one_with_unsent_bytes_of_a_request_is_not_used_again(monkeypatch: pytest.MonkeyPatch, unsent: int) -> None:
    loopback = Loopback()
    monkeypatch.setattr(loopback.server_transport, "get_write_buffer_size", lambda: unsent)
    assert loopback.exchange(REQUEST, RESPONSE).startswith(b"HTTP/1.1 200 OK")
    assert (loopback.target.take() is loopback.server) is (unsent == 0)
    loopback.close()

"""An answer over TLS that ends without a close_notify was cut, by whoever; one that ends with it is whole."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.support import Gateway, RawClient

ANSWERS = {
    "without a length": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it",
    "without a length or a Connection line": b"HTTP/1.1 200 OK\r\n\r\nhalf of it",
    "in HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf of it",
    "without a byte of it": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
}


class Cutter:
    """A TLS server that says one thing on each connection and ends it, properly or not."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.answer = b""
        self.polite = False
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with contextlib.suppress(OSError), sock, self._context.wrap_socket(sock, server_side=True) as wrapped:
                    wrapped.settimeout(10)
                    data = b""
                    while b"\r\n\r\n" not in data and (more := wrapped.recv(65536)):
                        data += more
                    wrapped.sendall(self.answer)
                    if self.polite:
                        wrapped.unwrap()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture(scope="module")
def cutter(authority: trustme.CA) -> Iterator[Cutter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with contextlib.closing(Cutter(context)) as server:
        yield server


@pytest.fixture(scope="module")
def cut_gateway(cutter: Cutter, authority_file: Path) -> Iterator[Gateway]:
    config = {"routes": {"cut": {"host": "*", "to": f"https://localhost:{cutter.port}"}}}
    with Gateway(config, environment={"SSL_CERT_FILE": str(authority_file)}) as gateway:
        yield gateway


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_cut_answer_is_not_passed_on_as_whole(
    cutter: Cutter, cut_gateway: Gateway, answer: bytes, version: str
) -> None:
    cutter.answer, cutter.polite = answer, False
    with RawClient(cut_gateway.port) as client:
        client.send(f"GET /cut HTTP/{version}\r\nHost: cut.test\r\n\r\n".encode())
        response = client.read_response()
    assert response.status == 502 or not response.complete, response
    assert response.status == 502 or response.end in {"fin", "rst"}
    if version == "1.0" and response.status != 502:
        assert response.end == "rst", "an HTTP/1.0 client takes a plain end for the end of the answer"


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_ends_properly_is_whole(cutter: Cutter, cut_gateway: Gateway, answer: bytes) -> None:
    cutter.answer, cutter.polite = answer, True
    with RawClient(cut_gateway.port) as client:
        client.send(b"GET /whole HTTP/1.1\r\nHost: cut.test\r\n\r\n")
        response = client.read_response()
    assert (response.status, response.complete, response.body) == (200, True, answer.partition(b"\r\n\r\n")[2])

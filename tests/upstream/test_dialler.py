"""Where a target is reached, and the sentence for each way in which it is not."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest
import uvloop

from devhost_server.failures import Fault
from devhost_server.upstream import tls
from devhost_server.upstream.dialler import Dialler
from devhost_server.upstream.options import TargetOptions
from tests.support import blackhole, free_port, refusing_port
from tests.support.certificates import authority, stranger
from tests.support.waiting import patient


@contextmanager
def listening(host: str, port: int = 0, context: ssl.SSLContext | None = None, says: bytes = b"") -> Iterator[int]:
    """A server that takes each connection, says something, and reads until the other side ends."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with closing(sock):
                try:
                    sock.settimeout(5)
                    stream = context.wrap_socket(sock, server_side=True) if context else sock
                    if says:
                        stream.recv(4096)
                        stream.sendall(says)
                    while stream.recv(4096):
                        pass
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def dialled(dialler: Dialler) -> Fault | None:
    """Connect once, and give why not."""

    async def dial() -> Fault | None:
        transports: list[asyncio.Transport] = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports.append(transport)  # type: ignore[arg-type]

        try:
            await dialler.dial(Protocol, 2.0)
        except Exception as error:
            return dialler.explain(error, 0.01, 2.0)
        for transport in transports:
            transport.abort()
        await asyncio.sleep(0)
        return None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(dial())


def dialler_to(url: str | int) -> Dialler:
    return Dialler(TargetOptions.model_validate(url))


# --- loopback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["{port}", "http://localhost:{port}", "http://LOCALHOST:{port}/base"])
def test_a_port_and_localhost_are_reached_on_either_loopback(written: str) -> None:
    port = free_port()
    url = written.format(port=port)
    dialler = dialler_to(int(url) if url.isdigit() else url)
    assert dialler.address == f"127.0.0.1:{port}"
    with listening("::1", port):
        assert dialled(dialler) is None
        assert dialler.address == f"[::1]:{port}"
        assert dialled(dialler) is None
    with listening("127.0.0.1", port):
        assert dialled(dialler) is None
        assert dialler.address == f"127.0.0.1:{port}"
    fault = dialled(dialler)
    assert fault is not None
    assert f"127.0.0.1:{port} and [::1]:{port} refused the connection" in fault.detail


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("[::1]", "127.0.0.1")])
def test_an_address_means_that_address(host: str, other: str) -> None:
    port = free_port()
    with listening(other, port):
        fault = dialled(dialler_to(f"http://{host}:{port}"))
    assert fault is not None
    assert fault.failure.error == "connection_refused"


@pytest.mark.parametrize("url", [3000, "http://localhost:3000", "https://localhost:3000", {"url": 3000, "weight": 2}])
def test_what_is_tried_survives_being_published(url: object) -> None:
    options = TargetOptions.model_validate(url)
    assert options.both_loopbacks
    assert TargetOptions.model_validate(options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:3000", "http://localhost.test:3000", {"url": 80, "both_loopbacks": False}]
)
def test_what_is_not(url: object) -> None:
    options = TargetOptions.model_validate(url)
    assert not options.both_loopbacks
    assert TargetOptions.model_validate(options.model_dump(mode="json")) == options
    if isinstance(url, str):
        assert options.model_dump(mode="json") == {"url": url, "weight": 1}


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority().file))


def handshake_with(context: ssl.SSLContext | None, says: bytes = b"", host: str = "127.0.0.1") -> str:
    with listening("127.0.0.1", 0, context, says) as port:
        fault = dialled(dialler_to(f"https://{host}:{port}"))
    if fault is None:
        return ""
    assert (fault.failure.flag, fault.failure.error) == ("UF", "tls_protocol_error")
    return fault.detail


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_of_a_known_authority_for_this_name(host: str) -> None:
    assert handshake_with(authority().context(), host=host) == ""


def test_an_unknown_authority_is_named_as_such() -> None:
    assert "signed by an authority that is not known here" in handshake_with(stranger().context())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_another_name(host: str) -> None:
    said = handshake_with(authority().context("other.test"), host=host)
    assert f"its certificate is for another name than {host}" in said


def test_an_expired_certificate() -> None:
    assert "its certificate has expired" in handshake_with(authority().context(expired=True))


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00" * 40])
def test_a_plain_server(says: bytes) -> None:
    assert "write http:// if it is a plain server" in handshake_with(None, says)


def test_a_hundred_targets_share_one_context() -> None:
    assert len({id(tls.client_context()) for _ in range(100)}) == 1


def test_authorities_that_changed_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tls.client_context()
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger().file))
    assert tls.client_context() is not first


def test_what_nobody_thought_of_is_a_fault_too(caplog: pytest.LogCaptureFixture) -> None:
    fault = dialler_to("http://127.0.0.1:1").explain(RuntimeError("odd"), 0.1, 2.0)
    assert (fault.failure.flag, fault.failure.error) == ("UF", "destination_ip_unroutable")
    assert "odd" in caplog.text


def test_no_server_at_all() -> None:
    with refusing_port() as port:
        fault = dialled(dialler_to(f"https://127.0.0.1:{port}"))
    assert fault is not None
    assert fault.failure.error == "connection_refused"


@pytest.mark.parametrize("holds_up", [0.0, 0.8])
def test_a_target_is_not_late_because_the_loop_stood_still(holds_up: float) -> None:
    """Its answer to the handshake comes while nobody looks, and in time."""

    async def dial(port: int) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(0.05, time.sleep, holds_up)
        with suppress(ConnectionResetError, ConnectionAbortedError, ssl.SSLError):
            await dialler_to(f"https://127.0.0.1:{port}").dial(asyncio.Protocol, 0.4)
        return loop.time() - began

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            time.sleep(0.2)
            peer.close()

        port = server.getsockname()[1]
        answering = threading.Thread(target=answer)
        answering.start()
        assert runner.run(dial(port)) >= holds_up
        answering.join()


def test_who_never_answers_ends_at_the_time_out() -> None:
    async def dial(port: int) -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await dialler_to(f"http://127.0.0.1:{port}").dial(asyncio.Protocol, 0.2)
        return asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, blackhole() as port:
        assert 0.19 < runner.run(dial(port)) < patient(0.6)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1 did not accept a connection within 2 s."),
        (
            "https://127.0.0.1:1",
            "127.0.0.1:1 did not accept a connection and answer in TLS within 2 s; if it speaks no TLS, write http://.",
        ),
    ],
)
def test_what_did_not_come_in_time(url: str, sentence: str) -> None:
    assert dialler_to(url).explain(TimeoutError(), 2.0, 2.0).detail == sentence

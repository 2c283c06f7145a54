"""What a conformance test holds in its hand: the proxy under test, whoever made it, seen from the client's side."""

import contextlib
import json
from collections.abc import Collection, Iterator
from typing import Any

from tests.support.client import RawClient, Response
from tests.support.gateway import Gateway
from tests.support.messages import HeaderArgument, request
from tests.support.peers import PeerProxy
from tests.support.waiting import wait_until


class WireUnderTest:
    """Opens connections to the proxy under test and closes them when the test is over.

    `gateway` is there when the proxy is ours; what only our contract promises is then asserted too.
    """

    def __init__(
        self, port: int, gateway: Gateway | None, stack: contextlib.ExitStack, host: str = "wire.test"
    ) -> None:
        self.port = port
        self.gateway = gateway
        self.host = host
        self._stack = stack

    def connect(self, *, timeout: float = 5.0, receive_buffer: int | None = None, remember: bool = True) -> RawClient:
        """A new connection."""
        client = RawClient(self.port, timeout=timeout, receive_buffer=receive_buffer, remember=remember)
        self._stack.callback(client.close)
        return client

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: HeaderArgument = (),
        body: bytes | None = None,
        **more: Any,
    ) -> bytes:
        """The bytes of a request for this door's host."""
        return request(method, target, headers, body, **({"host": self.host} | more))

    def send(
        self,
        method: str = "GET",
        target: str = "/",
        headers: HeaderArgument = (),
        body: bytes | None = None,
        **more: Any,
    ) -> RawClient:
        """A new connection on which one request has been sent."""
        client = self.connect()
        client.send(self.request(method, target, headers, body, **more))
        return client

    def ask(
        self,
        method: str = "GET",
        target: str = "/",
        headers: HeaderArgument = (),
        body: bytes | None = None,
        **more: Any,
    ) -> Response:
        """One request on a connection of its own, and its whole response."""
        return self.send(method, target, headers, body, **more).read_response(method)

    def exchange(self, data: bytes, method: str = "GET", timeout: float | None = None) -> Response:
        """These bytes on a connection of their own, and the whole response to them."""
        client = self.connect()
        client.send(data)
        return client.read_response(method, timeout)

    def expect_own(self, answer: Response, statuses: int | Collection[int], flag: str | None = None) -> None:
        """Assert that the proxy made this answer itself, with one of these statuses.

        For our own gateway the contract asks for more: a request id, a Proxy-Status, a problem document with the flag.
        """
        allowed = {statuses} if isinstance(statuses, int) else set(statuses)
        assert answer.status in allowed, f"expected one of {sorted(allowed)}, got {answer}"
        if not self.gateway:
            return
        assert answer.complete, answer
        assert answer.headers["X-Request-ID"], answer
        assert answer.headers["Proxy-Status"].startswith("devhost"), answer
        if answer.body:
            assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
            problem = json.loads(answer.body)
            assert problem["status"] == answer.status, problem
            if flag:
                assert problem["flag"] == flag, problem

    def expect_refused(
        self,
        client: RawClient,
        statuses: int | Collection[int] = 400,
        flag: str | None = "BR",
        *,
        or_closed: bool = False,
        method: str = "GET",
    ) -> Response | None:
        """Assert that the request was refused with one answer and the connection ended after it.

        Gives the answer; None where nothing but the end of the connection came, which only `or_closed` allows.
        """
        if or_closed and self._ends_silently(client):
            return None
        answer = client.read_response(method)
        self.expect_own(answer, statuses, flag)
        if self.gateway:
            assert "close" in answer.headers.tokens("connection"), f"no Connection: close in {answer}"
        client.expect_end()
        return answer

    def _ends_silently(self, client: RawClient) -> bool:
        with contextlib.suppress(TimeoutError):
            client.fill(3)
        return client.end is not None and not client.buffer

    def expect_flag(self, flag: str, **fields: Any) -> None:
        """Assert that the access log has a line with this flag and these fields (our gateway only)."""
        if self.gateway:
            self.gateway.access_entry(flag=flag, **fields)

    def entry(self, answer: Response) -> dict[str, Any]:
        """The access log line of a response (our gateway only)."""
        assert self.gateway
        return self.gateway.access_entry(request_id=answer.headers["X-Request-ID"])


@contextlib.contextmanager
def opened(proxy: Gateway | PeerProxy, host: str = "wire.test") -> Iterator[WireUnderTest]:
    """The door to a proxy for one test; afterwards the gateway must not have complained nor lost a worker."""
    gateway = proxy if isinstance(proxy, Gateway) else None
    workers = gateway.worker_pids() if gateway else []
    with contextlib.ExitStack() as stack:
        yield WireUnderTest(proxy.port, gateway, stack, host)
    if gateway and gateway.running:
        complaints = gateway.complaints()
        assert not complaints, f"on the gateway's stderr:\n{complaints[0]}"
        assert gateway.worker_pids() == workers, f"workers changed: {workers} → {gateway.worker_pids()}"


def idle(gateway: Gateway) -> bool:
    """Whether no exchange is running, by the gateway's own count."""
    return gateway.metrics().value("devhost_requests_in_flight") == 0


def settled(gateway: Gateway, timeout: float = 2.0) -> None:
    """Wait until no exchange is running."""
    wait_until(lambda: idle(gateway), timeout, "no exchange being in flight")

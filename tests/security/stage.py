"""Where attackers meet victims: a gateway before all real servers, each with a pool of one, of two, and the default."""

import contextlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.security.servers import Executed, RealServer, Servers
from tests.support import Gateway, RawClient
from tests.support.messages import BadMessageError
from tests.support.waiting import wait_until
from tests.support.wire import PeerGoneError

POOLS: dict[str, dict[str, object]] = {"one": {"max_connections": 1}, "two": {"max_connections": 2}, "default": {}}
# What no server may ever execute: the gateway answers it, and what attackers hide asks for it.
FORBIDDEN = "/admin"
# As the gateway's route has it: `/admin:x` is another name, and whoever asks for that may have it.
_FORBIDDEN = re.compile(re.escape(FORBIDDEN) + r"(?![A-Za-z0-9:._~!$&'()*+,=@-])")
_NUMBERS = itertools.count(1)
_TAGS = itertools.count(1)
_TAG = re.compile("t[0-9]+x")
_ENOUGH = 20  # harms
_GRACE = 0.005  # seconds for what comes behind a whole answer


def gateway_config(servers: Servers, workers: int = 1) -> dict[str, Any]:
    """A route by host for each server and pool, and one that forbids `/admin` on all of them.

    Waits are long, because a busy machine is not what is tried here.
    """
    upstreams: dict[str, Any] = {}
    routes: dict[str, Any] = {"forbidden": {"host": "*", "path": FORBIDDEN, "respond": {"status": 403}}}
    for server in servers.by_name.values():
        untrusted = {} if server.kind.trusted else {"reuse_after_body": False}
        for pool, options in POOLS.items():
            name = f"{server.kind.name}-{pool}"
            upstreams[name] = {"targets": [server.url], "pool": {**options, **untrusted, "wait": "10s"}}
            host = f"{server.kind.name}.{pool}.test"
            routes[name] = {"host": host, "upstream": name}
            routes[f"{name}-forbidden"] = {"host": host, "path": FORBIDDEN, "respond": {"status": 403}}
    timeouts = {"connect": "10s", "response": "10s", "read_idle": "10s", "tunnel_idle": "10s"}
    return {
        "server": {"workers": workers, "timeouts": {"head": "5s", "body_idle": "5s", "keepalive": "60s"}},
        "upstreams": upstreams,
        "routes": routes,
        "defaults": {"timeouts": timeouts},
    }


def gateway_before(servers: Servers, authority: Path, workers: int = 1) -> Gateway:
    """A gateway with that configuration, which believes the servers' certificates."""
    return Gateway(gateway_config(servers, workers), environment={"SSL_CERT_FILE": str(authority)})


def is_forbidden(target: str) -> bool:
    """Whether no server may execute a request for that target."""
    return _FORBIDDEN.search(target) is not None


def new_tag() -> str:
    """Return a word that no other request of this run has, as long as any other."""
    return f"t{next(_TAGS):07}x"


@dataclass(frozen=True)
class Harm:
    """Something that happened to one who did nothing."""

    lane: str
    after: str
    what: str

    def __str__(self) -> str:
        return f"{self.lane}, {self.after}: {self.what}"


class Victim:
    """A client with a connection of its own, whose every request must be answered as its own."""

    def __init__(self, port: int, host: str) -> None:
        self.port, self.host = port, host.encode()
        self._client: RawClient | None = None

    def ask(self) -> str | None:
        """Send one request; None if its answer is its own, else what is wrong with it."""
        number = str(next(_NUMBERS))
        request = (
            f"GET /v/{number} HTTP/1.1\r\nHost: {self.host.decode()}\r\nX-Victim: {number}\r\n"
            f"Cookie: who={number}\r\n\r\n"
        )
        try:
            client = self._client = self._client or RawClient(self.port, timeout=30, remember=False)
            client.send(request.encode())
            answer = client.read_response()
        except (BadMessageError, PeerGoneError, OSError) as error:
            self.close()
            return f"no answer: {error!r}"
        if answer.end or answer.headers.get("connection").lower() == "close":
            self.close()
        own = {"method": "GET", "target": f"/v/{number}", "victim": number, "cookie": f"who={number}", "length": 0}
        if answer.status == 200 and answer.complete and _is_own(answer.body, own):
            return None
        return f"victim {number} got {answer!r}"

    def close(self) -> None:
        """Close its connection."""
        if self._client:
            self._client.close()
            self._client = None


def _is_own(body: bytes, own: dict[str, object]) -> bool:
    try:
        seen = json.loads(body)
    except ValueError:
        return False
    return isinstance(seen, dict) and own.items() <= seen.items()


class Lane:
    """One server behind one pool, with what went wrong there so far."""

    def __init__(self, gateway: Gateway, server: RealServer, pool: str) -> None:
        self.gateway, self.server, self.pool = gateway, server, pool
        self.host = f"{server.kind.name}.{pool}.test"
        self.after = "before any attack"
        self.harms: list[Harm] = []

    def __repr__(self) -> str:
        return f"<Lane {self.host} {len(self.harms)} harms>"

    @property
    def lost(self) -> bool:
        """Whether so much went wrong that more would say nothing new, and only take time."""
        return len(self.harms) >= _ENOUGH

    def harm(self, what: str) -> None:
        """Note it."""
        self.harms.append(Harm(self.host, self.after, what))

    def check(self, victim: Victim, times: int = 1) -> None:
        """Let a victim ask."""
        for _ in range(times):
            if wrong := victim.ask():
                self.harm(wrong)

    def send(self, parts: Sequence[bytes], wait: float = 0.1) -> bytes:
        """Send the parts on a new connection, and return all that came; an answer is waited for behind each part.

        A wait ends a moment after a whole answer, with the connection, or after `wait` seconds of silence.
        """
        with contextlib.suppress(OSError), RawClient(self.gateway.port, timeout=5) as client:
            for part in parts:
                with contextlib.suppress(OSError):
                    client.send(part)
                with contextlib.suppress(TimeoutError):
                    while client.fill(_GRACE if _answered(client.received, part) else wait):
                        pass
            return bytes(client.received)
        return b""

    def ask_afterwards(self) -> None:
        """Let a newcomer ask."""
        with contextlib.closing(Victim(self.gateway.port, self.host)) as victim:
            self.check(victim, 3)


class Watch:
    """Reads what a server executes, from now on, and notes what nobody may have asked it for."""

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.harms: list[Harm] = []
        self.senders: dict[str, tuple[str, str]] = {}  # by tag: the lane, and what was sent
        _, self._mark = server.executed()

    def settle(self) -> None:
        """Wait until the server executes nothing more."""
        sizes: list[int] = []

        def is_still() -> bool:
            sizes.append(self.server.place.log.stat().st_size)
            return len(sizes) > 3 and len(set(sizes[-4:])) == 1

        wait_until(is_still, 20, f"{self.server.kind.name} being at rest")

    def check(self) -> list[Executed]:
        """Note each executed request that is no one's own, and return all since the last call."""
        requests, self._mark = self.server.executed(self._mark)
        for request in requests:
            if is_forbidden(request.target) or FORBIDDEN in request.method:
                self._harm(request, "the server executed what a request had hidden")
            elif (request.victim or request.target.startswith("/v/")) and not _is_itself(request):
                self._harm(request, "the server executed a mixture of two requests")
        return requests

    def _harm(self, request: Executed, what: str) -> None:
        found = _TAG.search(request.target)
        lane, after = self.senders.get(found[0] if found else "", (self.server.kind.name, "unknown"))
        self.harms.append(Harm(lane, after, f"{what}: {request}"))


def _is_itself(request: Executed) -> bool:
    return (request.method, request.target, request.cookie, request.length) == (
        "GET",
        f"/v/{request.victim}",
        f"who={request.victim}",
        0,
    )


def _answered(received: bytearray, sent: bytes) -> bool:
    """Whether an answer has come whole, as far as its head says how long it is."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    lower = bytes(head).lower()
    if lower.startswith((b"http/1.1 204", b"http/1.1 304")) or sent.startswith(b"HEAD "):
        return True
    if b"transfer-encoding: chunked" in lower:
        return body.endswith(b"0\r\n\r\n")
    at = lower.find(b"content-length: ")
    return at >= 0 and len(body) >= int(lower[at + 16 :].split(b"\r\n")[0])

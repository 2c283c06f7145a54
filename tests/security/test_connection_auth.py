"""Authentication that belongs to a connection (NTLM, Negotiate): who is authenticated there stays alone on it."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

import pytest

from tests.security.stage import POOLS
from tests.support import Gateway, RawClient, Received, Response, ScriptedUpstream, UpstreamConnection

_NAMES = itertools.count(1)


class ConnectionAuth:
    """A server that asks once a connection who it is, as Windows servers do, and believes it from then on."""

    def __init__(self, challenge: str, scheme: str) -> None:
        self.challenge, self.scheme = challenge, scheme
        self.users: dict[int, str] = {}  # by connection

    def __call__(self, connection: UpstreamConnection, received: Received) -> None:
        connection.read_body(received)
        scheme, _, token = received.headers.get("authorization").partition(" ")
        step, _, rest = token.partition("-")
        number = str(connection.number)
        if scheme == self.scheme and step == "begin":
            connection.respond(401, b"", WWW_Authenticate=f"{self.challenge} challenge-{number}")
            return
        if scheme == self.scheme and step == "finish":
            user, _, challenge = rest.partition("-")
            if challenge == number:  # else it answers a challenge of another connection, which means nothing here
                self.users[connection.number] = user
        elif scheme == self.scheme and step == "ticket":
            self.users[connection.number] = rest
        user = self.users.get(connection.number, "")
        if not user:
            connection.respond(401, b"", WWW_Authenticate=self.challenge)
        elif step == "ticket":
            connection.respond(200, user.encode(), WWW_Authenticate=f"{self.challenge} done")
        else:
            connection.respond(200, user.encode())


CHALLENGES = {
    "NTLM": "NTLM",
    "Negotiate": "Negotiate",
    "negotiate in lower case": "negotiate",
    "behind Basic": 'Basic realm="x", NTLM',
    "before Basic": 'NTLM, Basic realm="x"',
}


@pytest.fixture(scope="module")
def auth_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    upstreams = {
        pool: {"targets": [upstream_listener.url], "pool": {**options, "wait": "300ms"}}
        for pool, options in POOLS.items()
    }
    routes = {pool: {"host": f"{pool}.test", "upstream": pool} for pool in POOLS}
    timeouts = {"connect": "10s", "response": "10s", "read_idle": "10s"}
    config = {"upstreams": upstreams, "routes": routes, "defaults": {"timeouts": timeouts}}
    with Gateway(config) as gateway:
        yield gateway


class Person:
    """A client on a connection of its own."""

    def __init__(self, gateway: Gateway, pool: str) -> None:
        self.name = f"user{next(_NAMES)}"
        self.pool = pool
        self.client = RawClient(gateway.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, credentials: str = "", method: str = "GET", body: bytes = b"") -> Response:
        """Send one request, with credentials or without."""
        lines = [f"{method} / HTTP/1.1", f"Host: {self.pool}.test"]
        lines += [f"Authorization: {credentials}"] * bool(credentials) + [f"Content-Length: {len(body)}"] * bool(body)
        self.client.send("\r\n".join((*lines, "", "")).encode() + body)
        return self.client.read_response()

    def handshake(self, scheme: str) -> Response:
        """Do all three steps; the answer to the last."""
        assert self.ask().status == 401
        challenged = self.ask(f"{scheme} begin")
        challenge = challenged.headers["www-authenticate"].rpartition("challenge-")[2]
        return self.ask(f"{scheme} finish-{self.name}-{challenge}")


def scheme_of(challenge: str) -> str:
    return next(word for word in challenge.replace(",", " ").split() if word.lower() in {"ntlm", "negotiate"})


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("challenge", CHALLENGES.values(), ids=CHALLENGES)
def test_nobody_is_served_as_another(
    auth_gateway: Gateway, upstream: ScriptedUpstream, challenge: str, pool: str
) -> None:
    scheme = scheme_of(challenge)
    upstream.serve(ConnectionAuth(challenge, scheme))
    with Person(auth_gateway, pool) as first:
        answer = first.handshake(scheme)
        assert (answer.status, answer.body.decode()) == (200, first.name), "the handshake works"
        for _ in range(3):
            with Person(auth_gateway, pool) as stranger:
                assert stranger.ask().status in {401, 503}, "served as the first"
        again = first.ask(method="POST", body=b"hello")
        if pool == "one":  # there the strangers' connection may have had to take the place of the first one's
            assert again.status in {401, 503} or again.body.decode() == first.name
        else:
            assert again.body.decode() == first.name, "and lasts, as its owner expects"
    for _ in range(3):
        with Person(auth_gateway, pool) as stranger:
            assert stranger.ask().status in {401, 503}, "served as the first, who has left"


@pytest.mark.parametrize("pool", ["two", "default"])
def test_handshakes_of_two_at_once_do_not_mix(auth_gateway: Gateway, upstream: ScriptedUpstream, pool: str) -> None:
    upstream.serve(ConnectionAuth("NTLM", "NTLM"))
    with Person(auth_gateway, pool) as first, Person(auth_gateway, pool) as second:
        people = (first, second)
        assert [person.ask().status for person in people] == [401, 401]
        challenges = [
            person.ask("NTLM begin").headers["www-authenticate"].rpartition("challenge-")[2] for person in people
        ]
        for person, challenge in zip(people, challenges, strict=True):
            answer = person.ask(f"NTLM finish-{person.name}-{challenge}")
            assert (answer.status, answer.body.decode()) == (200, person.name)
        assert [person.ask().body.decode() for person in people] == [first.name, second.name]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
def test_a_ticket_that_needs_no_challenge_is_nobody_elses_either(
    auth_gateway: Gateway, upstream: ScriptedUpstream, scheme: str, pool: str
) -> None:
    upstream.serve(ConnectionAuth(scheme, scheme))
    with Person(auth_gateway, pool) as first:
        assert first.ask(f"{scheme} ticket-{first.name}").body.decode() == first.name
        with Person(auth_gateway, pool) as stranger:
            assert stranger.ask().status in {401, 503}, "served as the first"
    with Person(auth_gateway, pool) as stranger:
        assert stranger.ask().status in {401, 503}, "served as the first, who has left"


@pytest.mark.parametrize("challenge", ['Basic realm="NTLM"', "Bearer", 'Digest realm="x", nonce="Negotiate"'])
def test_credentials_that_come_with_each_request_share_connections(
    auth_gateway: Gateway, upstream: ScriptedUpstream, challenge: str
) -> None:
    upstream.serve(lambda connection, _: connection.respond(401, b"denied", WWW_Authenticate=challenge))
    with ExitStack() as stack:
        people = [stack.enter_context(Person(auth_gateway, "default")) for _ in range(4)]
        for person in people:
            assert person.ask("Basic dTpw").status == 401
    assert len(upstream.connections) == 1

"""Which connections to a target may carry another request: the table, row by row."""

import pytest

from devhost_server.messages import reuse
from devhost_server.messages.reuse import Reason

READS = (b"POST", b"PUT", b"PATCH")
OTHERS = (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PROPFIND", b"REPORT", b"QUERY", b"post", b"X")


def of_request(method: bytes = b"GET", **facts: bool) -> int:
    ordinary = {"body": False, "upgrade": False, "credentials": False, "bodies_read": True, "challenged": False}
    return reuse.of_request(method, **(ordinary | facts))


@pytest.mark.parametrize("method", READS + OTHERS)
def test_a_request_without_a_body_leaves_nothing(method: bytes) -> None:
    assert of_request(method) == 0
    assert of_request(method, bodies_read=False) == 0


@pytest.mark.parametrize("method", READS)
def test_a_body_is_trusted_to_be_read_where_it_means_something(method: bytes) -> None:
    assert of_request(method, body=True) == 0
    assert of_request(method, body=True, bodies_read=False) == Reason.BODY


@pytest.mark.parametrize("method", OTHERS)
def test_any_other_body_ends_the_connection(method: bytes) -> None:
    reasons = of_request(method, body=True)
    assert reasons == Reason.BODY
    assert reuse.ends(reasons)


def test_a_connection_that_authenticates_outlives_bodies() -> None:
    reasons = of_request(b"PROPFIND", body=True, credentials=True, challenged=True)
    assert reasons == Reason.CREDENTIALS
    assert not reuse.ends(reasons | Reason.CHALLENGE)
    assert of_request(b"PROPFIND", body=True, credentials=True) == Reason.CREDENTIALS | Reason.BODY, "nobody asked"


def test_an_upgrade_ends_the_connection() -> None:
    assert reuse.ends(of_request(upgrade=True))


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        ((False, False), 0),
        ((True, False), Reason.CLOSE),
        ((False, True), Reason.CHALLENGE),
        ((True, True), Reason.CLOSE | Reason.CHALLENGE),
    ],
)
def test_what_an_answer_leaves(facts: tuple[bool, bool], reasons: int) -> None:
    assert reuse.of_answer(close=facts[0], challenge=facts[1]) == reasons


@pytest.mark.parametrize("reason", sorted(reuse.SENTENCES))
def test_every_reason_is_one_bit_and_says_what_it_does(reason: int) -> None:
    assert reason.bit_count() == 1
    assert reuse.ends(reason) is (reason not in {Reason.CREDENTIALS, Reason.CHALLENGE, Reason.BARE, Reason.HELD})
    assert reuse.sentences(reason | Reason.CLOSE).count(",") == (reason != Reason.CLOSE)


def test_an_ordinary_connection_has_nothing_against_it() -> None:
    assert not reuse.ends(0)
    assert reuse.sentences(0) == ""

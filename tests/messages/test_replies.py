"""Answers of the gateway's own: one complete message each, that any parser reads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server import failures
from devhost_server.failures import Failure
from devhost_server.messages.replies import Reply, build, proxy_status, reason
from tests.messages import llhttp

FAILURES = [row for row in vars(failures).values() if isinstance(row, Failure)]


@pytest.mark.parametrize(
    ("status", "phrase"), [(200, "OK"), (413, "Content Too Large"), (499, "Client Closed Request"), (599, "")]
)
def test_reasons(status: int, phrase: str) -> None:
    assert reason(status) == phrase


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.title)
def test_every_failure_has_a_reason_a_flag_and_a_name(failure: Failure) -> None:
    assert reason(failure.status)
    assert failure.flag in failures.FLAGS
    assert proxy_status(failure.error) == b"devhost; error=" + failure.error.encode()


@given(st.integers(200, 599), st.binary(max_size=50), st.booleans())
def test_a_reply_is_one_complete_message(status: int, body: bytes, with_body: bool) -> None:
    body = b"" if status in (204, 304) else body
    reply = build(Reply(status, [(b"A", b"1"), (b"a", b"2")], body), with_body=with_body, hop=b"\r\nConnection: close")
    head, _, sent = reply.partition(b"\r\n\r\n")
    assert sent == (body if with_body else b"")
    (read,) = llhttp.read_responses(head + b"\r\n\r\n" + body)
    assert (read.status, read.body, read.end) == (status, body, True)
    names = [name for name, _ in read.fields]
    expected = [b"Date", b"A", b"a", *([] if status == 204 else [b"Content-Length"]), b"Connection"]
    assert names == expected
    assert dict(read.fields).get(b"Content-Length", b"%d" % len(body)) == b"%d" % len(body)


def test_the_answer_to_head_says_how_long_it_would_be() -> None:
    reply = build(Reply(200, [], b"abc"), with_body=False, hop=b"")
    assert b"\r\nContent-Length: 3\r\n\r\n" in reply
    assert reply.endswith(b"\r\n\r\n")

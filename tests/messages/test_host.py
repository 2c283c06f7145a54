import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.messages.host import parse_host


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a", (b"a", b"")),
        (b"A.Test:80", (b"a.test", b"80")),
        (b"a.test.:", (b"a.test", b"")),
        (b"a.test..", (b"a.test.", b"")),
        (b".", (b".", b"")),
        (b"127.0.0.1:65535", (b"127.0.0.1", b"65535")),
        (b"[::1]:8", (b"[::1]", b"8")),
        (b"[::FFFF:1.2.3.4]", (b"[::ffff:1.2.3.4]", b"")),
        (b"a_b!$&'()*+,;=~-", (b"a_b!$&'()*+,;=~-", b"")),
        (b"", None),
        (b":80", None),
        (b"a:65536", None),
        (b"a:1x", None),
        (b"a:-1", None),
        (b"a:80:80", None),
        (b"::1", None),
        (b"[::1", None),
        (b"[a]", None),
        (b"[1.2.3.4]", None),
        (b"[::1%25eth0]", None),
        (b"a b", None),
        (b"a/b", None),
        (b"a@b", None),
        (b"a%41", None),
        (b"a\\b", None),
        (b"\xc3\xa9", None),
        (b"a\n", None),
        (b"x" * 256, None),
    ],
)
def test_hosts(value: bytes, expected: tuple[bytes, bytes] | None) -> None:
    assert parse_host(value) == expected


@given(st.text("aB.-_:[]0", max_size=20).map(str.encode))
def test_a_parsed_host_parses_to_itself(value: bytes) -> None:
    parsed = parse_host(value)
    if parsed is not None:
        name, _ = parsed
        again = parse_host(name)
        assert again is not None
        assert again[0] in (name, name.removesuffix(b"."))
        assert name == name.lower()

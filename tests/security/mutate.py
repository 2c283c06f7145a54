"""Requests changed at random: valid ones and the attacks, until what they mean is a matter of opinion."""

import random
from collections.abc import Callable

from tests.messages.near_http import announced
from tests.security.attacks import CRLF, FAMILIES, UPGRADES, Attack, Words, attacks_on

_BYTES = (
    b"",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b"\x00",
    b":",
    b"0",
    b"a",
    b"\xff",
    b"\x0b",
    b",",
    b";",
    b"_",
    b"\x7f",
    b"\r\n",
)
_ENDS = (b"\n", b"\r", b"\r\r\n", b"\r\n ", b" \r\n", b"\n\r", b"")
_LINES = (
    b"Connection: close", b"Connection: keep-alive", b"Connection: keep-alive, Content-Length", b"Connection: TE",
    b"Expect: 100-continue", b"TE: trailers", b"Trailer: X", b"Upgrade: websocket", b"Upgrade: h2c",
    b"Connection: Upgrade", b"Host: elsewhere.test", b"X-HTTP-Method-Override: PUT", b"Keep-Alive: timeout=0",
    b"Transfer_Encoding: chunked", b"Content_Length: 0", b"Range: bytes=0-0", b"If-None-Match: *", b"Max-Forwards: 0",
)  # fmt: skip
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PROPFIND", b"FOO", b"TRACE", b"PATCH")
_PATHS = (b"/m/", b"/lazy/", b"/early/", b"/204/", b"/304/")


def seed_of(dice: random.Random, words: Words) -> Attack:
    """Return a request to start from: one that is plainly valid, or one of the attacks."""
    if dice.random() < 0.3:
        return Attack("valid", (_valid(dice, words),))
    family = dice.choice(tuple(FAMILIES))
    return dice.choice(attacks_on(words.host.decode(), family)).tagged(words.tag.decode())


def _valid(dice: random.Random, words: Words) -> bytes:
    method = dice.choice(_METHODS).decode()
    path = dice.choice(_PATHS).decode() + "TAG"
    fields = dice.choice(list(UPGRADES.values())) if dice.random() < 0.2 else ()
    body = dice.choice((b"hello", words.hidden, words.open))
    shape = dice.randrange(3)
    if shape == 0:
        return words.head(method, path, *fields)
    return (words.framed if shape == 1 else words.chunked)(method, path, body, *fields)


def _byte(dice: random.Random, data: bytes, words: Words) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_BYTES) + data[at + dice.randrange(2) :]


def _line_end(dice: random.Random, data: bytes, words: Words) -> bytes:
    lines = data.split(CRLF)
    at = dice.randrange(len(lines))
    return CRLF.join(lines[: at + 1]) + dice.choice(_ENDS) + CRLF.join(lines[at + 1 :])


def _framing(dice: random.Random, data: bytes, words: Words) -> bytes:
    """Announce the body in any other way, in the place of a line or in addition."""
    head, _, body = data.partition(CRLF * 2)
    lines = head.split(CRLF)
    at = dice.randrange(1, len(lines) + 1)
    new = dice.choice(_announcements(len(body)))
    return CRLF.join((*lines[:at], new.removesuffix(CRLF), *lines[at + dice.randrange(2) :])) + CRLF * 2 + body


_ANNOUNCED: dict[int, list[bytes]] = {}


def _announcements(size: int) -> list[bytes]:
    if size not in _ANNOUNCED:
        _ANNOUNCED[size] = [line for line in announced(b"a" * size) if line]
    return _ANNOUNCED[size]


def _line(dice: random.Random, data: bytes, words: Words) -> bytes:
    """Put a line in, leave one out, double one, or move it."""
    lines = data.split(CRLF)
    at, to = dice.randrange(len(lines)), dice.randrange(1, len(lines) + 1)
    kind = dice.randrange(4)
    if kind == 0:
        return CRLF.join((*lines[:to], dice.choice(_LINES), *lines[to:]))
    if kind == 1:
        return CRLF.join((*lines[:to], lines[at], *lines[to:]))
    taken = lines.pop(at)
    if kind == 2:
        lines.insert(to, taken)
    return CRLF.join(lines)


def _case(dice: random.Random, data: bytes, words: Words) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + data[at : at + 20].swapcase() + data[at + 20 :]


def _method(dice: random.Random, data: bytes, words: Words) -> bytes:
    _, blank, rest = data.partition(b" ")
    return dice.choice(_METHODS) + blank + rest


def _glue(dice: random.Random, data: bytes, words: Words) -> bytes:
    return data + b"".join(seed_of(dice, words).parts)


_CHANGES: tuple[Callable[[random.Random, bytes, Words], bytes], ...] = (
    _byte, _byte, _byte, _line_end, _framing, _framing, _line, _line, _case, _method, _glue,
)  # fmt: skip


def mutated(dice: random.Random, words: Words) -> list[bytes]:
    """Return one changed request, in one packet or in several."""
    data = b"".join(seed_of(dice, words).parts)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        data = dice.choice(_CHANGES)(dice, data, words)
    if dice.random() < 0.8 or len(data) < 2:
        return [data]
    places = sorted(dice.sample(range(1, len(data)), k=min(dice.randrange(1, 3), len(data) - 1)))
    return [piece for piece in (data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)) if piece]

"""What is kept of bodies: counted once, given back, and not in more objects than it is worth."""

import sys

import pytest

from devhost_server.messages.body_buffer import BodyBuffer, BodyMemory


def test_what_is_counted_is_given_back_once() -> None:
    memory = BodyMemory(100)
    first, second = BodyBuffer(80, memory), BodyBuffer(80, memory)
    assert first.count(60)
    assert second.count(40)
    assert not second.count(1)
    first.release()
    first.release()
    assert memory.held == 41
    second.release()
    assert memory.held == 0


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1000, 16_383, 16_384, 100_000])
def test_a_body_in_small_pieces_weighs_little_more_than_its_bytes(size: int) -> None:
    memory, pieces = BodyMemory(), []
    buffer, body = BodyBuffer(1 << 20, memory), b""
    for number in range((1 << 20) // size):
        piece = bytes([number % 251]) * size
        pieces.append(piece)
        buffer.tidy(pieces)
        body += b"" if size < 100 else piece
    kept = b"".join(pieces)
    assert len(kept) == (1 << 20) // size * size
    assert size < 100 or kept == body
    assert sum(map(sys.getsizeof, pieces)) + 8 * len(pieces) < 1.2 * (1 << 20)


def test_large_pieces_are_not_copied() -> None:
    buffer, pieces = BodyBuffer(1 << 20, BodyMemory()), []
    large = [b"x" * 20_000 for _ in range(600)]
    for piece in large:
        pieces.append(piece)
        buffer.tidy(pieces)
    assert all(kept is piece for kept, piece in zip(pieces, large, strict=True))

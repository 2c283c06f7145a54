"""The chunked coding, both ways."""

from typing import Any, Final

import pytest

from devhost_server.messages import chunked

PIECE: Final = bytes(range(256)) * 4
PIECES: Final = [PIECE] * 64
BODY: Final = b"".join(map(chunked.encode, PIECES)) + chunked.END


def decoder(body: bytes) -> list[bytes]:
    reader = chunked.ChunkedDecoder(65536)
    pieces = reader.feed(body)
    assert reader.done
    return pieces


def cutting_off(body: bytes) -> list[bytes]:
    """The plain way: what has been read is cut off the rest. It believes whatever comes."""
    pieces: list[bytes] = []
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return pieces
        pieces.append(body[:size])
        body = body[size + 2 :]


@pytest.mark.benchmark(group="64 chunks of 1 KiB decoded")
@pytest.mark.parametrize("decode", [decoder, cutting_off])
def test_a_chunked_body_is_walked_over(benchmark: Any, decode: Any) -> None:
    """Walking over what came by its index saves copying the rest of it for each chunk, which pays for judging every
    size line and every end strictly.
    """
    assert benchmark(decode, BODY) == PIECES


def formatted(data: bytes) -> bytes:
    return chunked.encode(data)


def put_together(data: bytes) -> bytes:
    return f"{len(data):x}".encode() + b"\r\n" + data + b"\r\n"


@pytest.mark.benchmark(group="a chunk of 1 KiB framed")
@pytest.mark.parametrize("encode", [formatted, put_together])
def test_a_chunk_is_framed_in_one_step(benchmark: Any, encode: Any) -> None:
    """Formatting bytes once saves a string, its encoding and the copies in between."""
    assert benchmark(encode, PIECE) == b"400\r\n" + PIECE + b"\r\n"

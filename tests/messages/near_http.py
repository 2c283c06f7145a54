"""Bytes that are HTTP, or nearly: what two readers of one stream could read differently."""

import re
from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# RFC 9110 §5.5 takes tabs for blanks around a value; llhttp does not beside `chunked`, and refuses the message.
TABBED_CODING = re.compile(rb"transfer-encoding:[ \t]*(\t[ \t]*chunked|chunked[ \t]*\t)", re.IGNORECASE)
# Chunk extensions are read over (RFC 9112 §7.1.1) and never passed on; llhttp holds them to their grammar.
ODD_EXTENSION = re.compile(
    rb"(?:^|\r\n)[0-9A-Fa-f]+;(?!(?:;?[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"[^\"\\\r\n]*\"))?)+\r\n)"
)


def read_differently(stream: bytes) -> bool:
    """Whether the known and harmless differences between llhttp and the gateway may show in these bytes."""
    return TABBED_CODING.search(stream) is not None or ODD_EXTENSION.search(stream) is not None


CRLF = b"\r\n"
TOKENS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

names = st.text(TOKENS, min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=20).map(lambda raw: bytes(b for b in raw if b == 9 or (b >= 32 and b != 127)).strip(b" \t"))
odd_values = st.sampled_from(
    [b"a\x00b", b"a\rb", b"a\nb", b"a\x7fb", b"a\x0bb", b" a\t ", b"\x80\xff", b"a\r\n b", b""]
)

lengths = st.one_of(
    st.integers(0, 40).map(lambda n: b"%d" % n),
    st.sampled_from([b"+3", b"-1", b"0x3", b"3,3", b"3, 4", b" 3", b"03", b"3 ", b"", b"1_0", b"99999999999999999999",
                     b"3;", b"\xb2", b"3\t"]),
)  # fmt: skip
CODINGS = [b"chunked", b"Chunked", b"chunked ", b"xchunked", b"chunked, chunked", b"gzip, chunked",
                           b"chunked, gzip", b"identity", b"", b",chunked", b"chunked,", b"chunked;q=1", b"\tchunked",
                           b"chu nked", b"chunked\x0b"]  # fmt: skip
LENGTH_NAMES = [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content-Length ",
                                b"Content_Length", b" Content-Length", b"Content-Length\t"]  # fmt: skip
CODING_NAMES = [b"Transfer-Encoding", b"transfer-encoding", b"Transfer-Encoding ", b"\tTransfer-Encoding",
                                b"Transfer_Encoding"]  # fmt: skip
codings, length_names, coding_names = map(st.sampled_from, (CODINGS, LENGTH_NAMES, CODING_NAMES))
connection_values = st.sampled_from([b"close", b"keep-alive", b"Keep-Alive, X-Gone", b"upgrade", b"close, keep-alive",
                                     b"Content-Length", b"transfer-encoding", b"X-Gone"])  # fmt: skip

CODED = b"Transfer-Encoding: chunked"
# How a length may be written, the proper way more often than any other.
WRITTEN_LENGTHS = [b"%d", b"+%d", b"-%d", b"0x%x", b"0%d", b"%d ", b"\t%d", b"%d,%d", b"%d, %d", b"%d.0", b"%d;",
                   b"1%d", b"%d\x00", b"\x0b%d", b"", b"%d0000000000000000000"]  # fmt: skip
written_lengths = st.sampled_from([b"%d"] * 5 + WRITTEN_LENGTHS)


def announced(body: bytes) -> list[bytes]:
    """Every line and pair of lines that could announce this body, proper or not."""
    lengths = [
        name + b": " + how % ((len(body),) * how.count(b"%")) for name in LENGTH_NAMES for how in WRITTEN_LENGTHS
    ]
    coded = [name + b": " + coding for name in CODING_NAMES for coding in CODINGS]
    lines = [line + CRLF for line in (*lengths, *coded)]
    plain = [b"Content-Length: %d\r\n" % len(body), b"content-length: 0\r\n", CODED + CRLF, CODED.lower() + CRLF]
    return [
        b"",
        *lines,
        *(one + other for one in lines for other in plain),
        *(other + one for one in lines for other in plain),
    ]


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The line that announces a body, and the body: properly, or nearly."""
    if draw(st.booleans()):
        body = draw(st.binary(max_size=40))
        how = draw(written_lengths)
        return b"Content-Length: " + how % ((len(body),) * how.count(b"%")) + CRLF, body
    return draw(st.sampled_from([CODED, CODED, CODED.lower()])) + CRLF, draw(chunked_bodies())


# Endings of a line and what stands behind a colon, the proper one by far the most frequent.
line_ends = st.sampled_from([CRLF] * 80 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b" \r\n", b"\n\r"])
colons = st.sampled_from([b": "] * 80 + [b":", b":\t ", b" : ", b"", b" ", b":: "])


@st.composite
def field_lines(draw: st.DrawFn) -> bytes:
    """A field line with its ending."""
    kind = draw(st.integers(0, 9))
    if kind <= 2:
        name, value = draw(length_names), draw(lengths)
    elif kind <= 4:
        name, value = draw(coding_names), draw(codings)
    elif kind == 5:
        name, value = b"Connection", draw(connection_values)
    elif kind == 6:
        name, value = draw(st.sampled_from([b"Upgrade", b"Expect", b"TE", b"Host", b"Trailer"])), draw(values)
    else:
        name, value = draw(names), draw(st.one_of(values, values, values, odd_values))
    return name + draw(colons) + value + draw(line_ends)


splinters = st.sampled_from([b"", b"\r", b"\n", b" ", b"\t", b"\x00", b":", b"0", b"a", b"\xff"])


def spliced(parts: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Those bytes, now and then with a byte put in, taken out or replaced anywhere."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        data = draw(parts)
        for _ in range(draw(st.sampled_from([0] * 12 + [1, 2]))):
            at = draw(st.integers(0, len(data)))
            data = data[:at] + draw(splinters) + data[at + draw(st.integers(0, 1)) :]
        return data

    return build()


chunk_sizes = st.sampled_from([b"%x", b"%X", b"%02x", b"%x;a", b'%x;a="b c"', b"%x;a=b", b"%x ", b" %x", b"+%x",
                               b"0x%x", b"%x;", b"%x;a=\x80"])  # fmt: skip


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    """A body in the chunked coding, or nearly."""
    body = b""
    proper = draw(st.booleans())
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        size = len(data) if proper else len(data) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        pattern = b"%x" if proper else draw(chunk_sizes)
        end = CRLF if proper else draw(line_ends)
        body += pattern % max(size, 0) + end + data + (CRLF if proper else draw(line_ends))
    body += draw(st.sampled_from([b"0\r\n"] * 6 + [b"00\r\n", b"0;x\r\n", b"0\n", b"", b"0 \r\n"]))
    for name, value in draw(st.lists(st.tuples(names, values), max_size=2)):
        body += name + b": " + value + (CRLF if proper else draw(line_ends))
    return body + CRLF


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int]:
    """Places at which a stream of `size` bytes is cut, in order, both ends included."""
    inner = draw(st.lists(st.integers(0, size), max_size=8))
    return [0, *sorted(inner), size]


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    """The pieces between the cuts."""
    return [data[start:end] for start, end in pairwise(at)]

"""HTTP/1.1 messages as bytes: building them, and taking them apart strictly (clients) or leniently (upstreams)."""

import re
from collections.abc import Iterable, Iterator, Mapping

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3}) ([\t\x20-\x7e\x80-\xff]*)")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*"
    rb"((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)

HeaderArgument = Mapping[str, str] | Iterable[tuple[str, str]]


class BadMessageError(AssertionError):
    """What came is not a well-formed HTTP/1.1 message."""


class Fields:
    """Field lines in the order they came: names and values as text, each byte one Latin-1 character."""

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self.lines = list(lines)

    def __repr__(self) -> str:
        return f"Fields({self.lines!r})"

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def __getitem__(self, name: str) -> str:
        """The value of a field that must be there exactly once."""
        values = self.all(name)
        assert len(values) == 1, f"expected one {name}, got {values} in {self.lines}"
        return values[0]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.lines)

    def all(self, name: str) -> list[str]:
        """Every value of the field, in order."""
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def get(self, name: str, default: str = "") -> str:
        """The value, or the default where the field is missing."""
        values = self.all(name)
        return values[0] if values else default

    def tokens(self, name: str) -> list[str]:
        """The members of a list-valued field over all its lines, in lower case."""
        return [token.strip().lower() for value in self.all(name) for token in value.split(",") if token.strip()]

    @property
    def names(self) -> list[str]:
        """The names in the order and case they came."""
        return [name for name, _ in self.lines]


def request(
    method: str = "GET",
    target: str = "/",
    headers: HeaderArgument = (),
    body: bytes | None = None,
    *,
    host: str | None = "wire.test",
    version: str = "HTTP/1.1",
    chunks: Iterable[bytes] | None = None,
) -> bytes:
    """A request: `body` gets a Content-Length, `chunks` the chunked coding, neither nothing."""
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += _lines(headers)
    tail = b""
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
        tail = body
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        tail = chunked(*chunks)
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + tail


def response(
    status: int | str = 200,
    headers: HeaderArgument = (),
    body: bytes | None = b"",
    *,
    reason: str = "Fine",
    version: str = "HTTP/1.1",
    chunks: Iterable[bytes] | None = None,
) -> bytes:
    """A response with a Content-Length, or chunked, or (body None) without any framing of its own."""
    lines = [f"{version} {status} {reason}", *_lines(headers)]
    tail = b""
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        tail = chunked(*chunks)
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
        tail = body
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + tail


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes, trailers: HeaderArgument = ()) -> bytes:
    """A whole chunked body with its last chunk and trailers."""
    tail = "".join(f"{line}\r\n" for line in _lines(trailers)).encode("latin-1")
    return b"".join(chunk(piece) for piece in pieces) + b"0\r\n" + tail + b"\r\n"


def _lines(headers: HeaderArgument) -> list[str]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [f"{name}: {value}" for name, value in pairs]


def parse_response_head(head: bytes) -> tuple[str, int, str, Fields]:
    """Version, status, reason and fields; raises BadMessageError for whatever RFC 9112 does not allow a sender."""
    if not head.endswith(b"\r\n\r\n"):
        raise BadMessageError(f"the head does not end in an empty line: {head[-80:]!r}")
    first, *rest = head[:-4].split(b"\r\n")
    line = _STATUS_LINE.fullmatch(first)
    if not line:
        raise BadMessageError(f"not a status line: {first[:200]!r}")
    return f"HTTP/1.{line[1].decode()}", int(line[2]), line[3].decode("latin-1"), parse_fields(rest)


def parse_fields(lines: Iterable[bytes]) -> Fields:
    """Field lines, strictly: a token, a colon, a value without control characters."""
    fields = []
    for raw in lines:
        field = _FIELD.fullmatch(raw)
        if not field:
            raise BadMessageError(f"not a field line: {raw[:200]!r}")
        fields.append((field[1].decode("latin-1"), field[2].decode("latin-1")))
    return Fields(fields)


def lenient_fields(lines: Iterable[bytes]) -> Fields:
    """Field lines as a careless server would read them, so that what a gateway lets through can be seen."""
    pairs = (line.partition(b":")[::2] for line in lines)
    return Fields((name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in pairs)


_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


def split_requests(data: bytes) -> list[bytes]:
    """Cut what was sent on one connection into its requests, as the strictest reader of RFC 9112 does.

    The last one may be incomplete. Raises BadMessageError for whatever a correct sender never sends: this is how a
    test sees that a proxy's own output is framed, whatever the client did.
    """
    requests = []
    while data:
        size = request_size(data)
        requests.append(data[:size])
        data = data[size:]
    return requests


def request_size(data: bytes) -> int:
    """How many bytes the first request has; all there are if it is incomplete. Raises as `split_requests` does."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data)
    first, *rest = data[:end].split(b"\r\n")
    if not _REQUEST_LINE.fullmatch(first):
        raise BadMessageError(f"not a request line: {first[:200]!r}")
    fields = parse_fields(rest)
    codings, lengths = fields.all("transfer-encoding"), fields.all("content-length")
    hosts = fields.all("host")
    if len(codings) + len(lengths) > 1 or len(hosts) > 1 or (not hosts and not first.endswith(b"HTTP/1.0")):
        raise BadMessageError(f"framed twice, or not exactly one Host: {fields}")
    if lengths:
        if not re.fullmatch("[0-9]{1,18}", lengths[0]):
            raise BadMessageError(f"not a length: {lengths}")
        return min(end + 4 + int(lengths[0]), len(data))
    if codings:
        if codings[0].lower() != "chunked":
            raise BadMessageError(f"not chunked: {codings}")
        return _chunked_size(data, end + 4)
    return end + 4


def _chunked_size(data: bytes, at: int) -> int:
    """Where the chunked body that begins at `at` ends; the end of the data if it is incomplete."""
    while (line_end := data.find(b"\r\n", at)) >= 0:
        line = _CHUNK_LINE.fullmatch(data[at:line_end])
        if not line:
            raise BadMessageError(f"not a chunk size line: {data[at:line_end][:100]!r}")
        at = line_end + 2
        size = int(line[1], 16)
        if size == 0:
            return _trailers_end(data, at)
        if len(data) < at + size + 2:
            return len(data)
        if data[at + size : at + size + 2] != b"\r\n":
            raise BadMessageError("chunk data is not followed by CRLF")
        at += size + 2
    return len(data)


def _trailers_end(data: bytes, at: int) -> int:
    while (line_end := data.find(b"\r\n", at)) >= 0:
        if line_end == at:
            return at + 2
        parse_fields([data[at:line_end]])
        at = line_end + 2
    return len(data)

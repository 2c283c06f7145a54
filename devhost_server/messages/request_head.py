"""The head of a request: from bytes to what the gateway decides on and what it passes on.

Reject rather than repair: what two readers could read differently (RFC 9112 §11.2) is refused here, before anything
reaches an upstream. What passes is forwarded as the bytes that came: order, case and duplicates kept.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Final

from devhost_server.failures import (
    BAD_CODING,
    BAD_REQUEST,
    BAD_VERSION,
    METHOD_REFUSED,
    Fault,
)
from devhost_server.messages.fields import (
    CRLF,
    GUARDED,
    HOP_BY_HOP,
    TOKEN,
    VALUE_BYTES,
    Lines,
    binds_connection,
    join_block,
    parse_length,
    split_block,
    tokens,
    without,
)
from devhost_server.messages.host import parse_host
from devhost_server.messages.paths import strict_flaw
from devhost_server.messages.reuse import Reason
from devhost_server.messages.trust import MADE_HERE, OWN_FAMILY, Peer, fold, is_statement

# A request line holds neither tabs nor controls. RFC 9112 §3.2 allows no bytes over 0x7f either, but address bars and
# curl send them and every peer passes them on; "#" is refused because readers disagree on whether the path ends there.
LINE_BYTES: Final = bytes(byte for byte in range(256) if byte >= 0x20 and byte not in (0x23, 0x7F))
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
# As much of a refused head is looked at for the log.
_SEEMING_BYTES: Final = 16 * 1024
_HOST_BYTES: Final = 255
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
# A path in front of ours: one slash before each segment, and nothing that a browser could take for the name of a host.
_PREFIX: Final = re.compile(
    rb"(?:/(?!\.\.?(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+;=:@-]|%(?!2[Ff]|5[Cc])[0-9A-Fa-f]{2})+)+/?"
)
_SCHEMES: Final = frozenset((b"http", b"https", b"ws", b"wss"))
# RFC 9113 §3.1: h2c by upgrade is obsolete; through a tunnel HTTP/2 would pass routing, rules and log by.
_H2: Final = frozenset((b"h2c", b"h2"))
_COMMON_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))

# The longest registered method (UPDATEREDIRECTREF) has 17 bytes. The log and the error page show a method whole.
METHOD_BYTES: Final = 32

LONG_METHOD: Final = BAD_REQUEST(f"The request method is longer than {METHOD_BYTES} bytes.")
BAD_LINE: Final = BAD_REQUEST("The request line is not a method, a target and a version with single blanks between.")
_BAD_TARGET: Final = BAD_REQUEST("The request target is not a path, an http URL without a user, or * for OPTIONS.")
_BAD_PATH: Final = BAD_REQUEST(
    "The path has a backslash, a NUL, a dot segment with parameters, or dot segments that are escaped twice: servers "
    "read it differently, and `server.paths` is strict."
)
BAD_BYTES: Final = BAD_REQUEST("A header holds a control character, or a CR or LF that stands alone.")
_NO_COLON: Final = BAD_REQUEST("A header line has no colon.")
_BAD_NAME: Final = BAD_REQUEST("A header name is not a token directly before its colon.")
_TWO_HOSTS: Final = BAD_REQUEST("There are two Host headers.")
_BAD_LENGTH: Final = BAD_REQUEST("Content-Length is not one whole number, given once.")
_BAD_FRAMING: Final = BAD_REQUEST("Both Content-Length and Transfer-Encoding are given.")
_BAD_CHUNKED: Final = BAD_REQUEST("Transfer-Encoding is not `chunked`, given once.")
_BAD_KEY: Final = BAD_REQUEST("Sec-WebSocket-Key is not 16 bytes in base64, sent with GET.")
_HANDSHAKE_BODY: Final = BAD_REQUEST("A WebSocket handshake has no body.")
# What is sent to a target about our own hop where there is nothing to say.
_NO_HOP: Final = b"\r\n\r\n"


class RequestFields:
    """What the field section of a request says; read-only once built, several requests may share it.

    `forward` is the block that is passed on, made of the lines in `kept`, where the Host line is the one at `host_at`.
    `hop` holds the lines of our own hop to the target, empty line included, if nothing about the request depends on
    where it goes; `plain` says that nothing does.
    """

    __slots__ = (
        "chunked",
        "client_address",
        "close",
        "credentials",
        "disbelieved",
        "expect_continue",
        "forward",
        "forwarded_for",
        "forwarded_host",
        "forwarded_port",
        "forwarded_prefix",
        "forwarded_proto",
        "head_before",
        "head_behind",
        "hop",
        "host",
        "host_at",
        "keep_alive",
        "kept",
        "length",
        "lines",
        "log_head",
        "log_method",
        "log_route",
        "log_tail",
        "max_forwards",
        "nominated",
        "odd_expectation",
        "plain",
        "referer",
        "request_id",
        "suspect",
        "traceparent",
        "trailer",
        "trailers_welcome",
        "upgrade",
        "user_agent",
        "via",
        "websocket_key",
    )

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.kept: list[bytes] = []
        self.nominated: list[bytes] = []
        self.forward = b""
        self.hop = _NO_HOP
        self.plain = True  # nothing in it asks for more than being passed on
        self.host: bytes | None = None
        self.host_at = 0
        self.length: int | None = None
        self.chunked = False
        self.close = False
        self.keep_alive = False
        self.upgrade: bytes | None = None
        self.websocket_key: bytes | None = None
        self.expect_continue = False
        self.odd_expectation = False
        self.suspect = False  # whether these fields are a reason to refuse some request
        self.trailers_welcome = False
        self.trailer: bytes | None = None  # what the client says it will send behind the body
        self.credentials = False  # they authenticate the connection, not the request
        self.forwarded_for: bytes | None = None
        self.forwarded_proto: bytes | None = None
        self.forwarded_host: bytes | None = None
        self.forwarded_port: bytes | None = None
        self.forwarded_prefix: bytes | None = None
        self.client_address = b""
        self.disbelieved: frozenset[bytes] = frozenset()  # lower-case names of statements that were dropped
        self.request_id: bytes | None = None
        self.via: bytes | None = None
        self.user_agent = b""
        self.referer = b""
        self.max_forwards: bytes | None = None  # how many more may pass it on; several of them are none
        self.traceparent = b""
        # Kept here by the gateway and the access log, which make them once for all requests that share the fields.
        self.head_before = b""
        self.head_behind = b""
        self.log_route: object = None
        self.log_method = b""
        self.log_head = b""
        self.log_tail = b""

    def get(self, name: bytes) -> bytes | None:
        """Return the value of the first field called `name` (lower-case), or None."""
        for line in self.lines:
            spelling, _, value = line.partition(b":")
            if spelling.lower() == name:
                return value.strip(b" \t")
        return None

    def sole(self, name: bytes) -> bytes | None:
        """Return the value of the field called `name` (lower-case) if no server can read another one, else None.

        That is: all fields of that name have it, those too whose names are the same only to servers that fold names,
        the peer is believed about it, and no Connection line takes it away before it reaches one.
        """
        if name in self.disbelieved or (self.nominated and name in _LINES.nominated(self.nominated)):
            return None
        value, folded = self.get(name), fold(name)
        for line in self.lines:
            spelling, _, other = line.partition(b":")
            if len(spelling) == len(name) and fold(spelling) == folded and other.strip(b" \t") != value:
                return None
        return value

    @property
    def has_body(self) -> bool:
        """Whether content follows the head (RFC 9112 §6.3); a length of 0 announces none."""
        return self.chunked or bool(self.length)

    def forward_with(self, host: bytes) -> bytes:
        """Return the block that is passed on with another Host, in the place of the client's."""
        at = self.host_at
        behind = self.kept[at:] if self.host is None else self.kept[at + 1 :]
        return join_block([*self.kept[:at], b"Host: " + host, *behind])

    @property
    def wants_websocket(self) -> bool:
        """Whether the upgrade asked for is (also) to WebSocket."""
        return self.upgrade is not None and b"websocket" in protocols(self.upgrade)


def parse_request_line(line: bytes, *, strict: bool = False) -> tuple[bytes, bytes, bool] | Fault:
    """Return (method, target, whether it is HTTP/1.0) of a request line, or why it is refused (RFC 9112 §3).

    `strict` refuses paths that some servers fold, see `devhost_server.messages.paths`.
    """
    parts = line.split(b" ")
    if len(parts) != 3 or line.translate(None, LINE_BYTES):
        return BAD_LINE
    method, target, version = parts
    if version != b"HTTP/1.1" and version != b"HTTP/1.0":  # noqa: PLR1714 -- quicker than a tuple, once a request
        known_form = _VERSION.fullmatch(version) is not None
        return BAD_VERSION("This port speaks HTTP/1.1 and HTTP/1.0.") if known_form else BAD_LINE
    if method not in _COMMON_METHODS:
        refused = _judge_method(method)
        if refused is not None:
            return refused
    if target[:1] != b"/" and not _is_other_form(method, target):
        return _BAD_TARGET
    if strict and strict_flaw(target if target[:1] == b"/" else split_absolute(method, target)[1]):
        return _BAD_PATH
    return method, target, version == b"HTTP/1.0"


ALLOWED: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def _judge_method(method: bytes) -> Fault | None:
    if len(method) > METHOD_BYTES:
        return LONG_METHOD
    if TOKEN.fullmatch(method) is None:
        return BAD_LINE
    if method in (b"CONNECT", b"TRACE"):
        # RFC 9110 §9.3.6: a tunnel is not a reverse proxy's to open; §9.3.8: TRACE would show what the gateway adds.
        sentence = f"{method.decode()} is not offered by this gateway."
        return Fault(METHOD_REFUSED, sentence, allow=ALLOWED)
    return None


def _is_other_form(method: bytes, target: bytes) -> bool:
    """Whether a target that is no path is allowed: absolute form without a user, or the asterisk of OPTIONS."""
    if target == b"*":
        return method == b"OPTIONS"
    absolute = _ABSOLUTE.fullmatch(target)
    return absolute is not None and b"@" not in absolute[1]


def split_absolute(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Split a checked absolute-form target into (authority, origin-form target).

    RFC 9112 §3.2.2; without a path it becomes ``/``, or ``*`` for OPTIONS (§3.2.4). A query keeps its place.
    """
    if target == b"*":
        return b"", target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ValueError(target)
    authority, rest = absolute.groups()
    if not rest and method == b"OPTIONS":
        return authority, b"*"
    return authority, rest if rest[:1] == b"/" else b"/" + rest


# How one field is taken in: (fields so far, value without outer blanks, who sent it) -> True if its line is passed on,
# False if it is not, or why the request is refused.
_Take = Callable[[RequestFields, bytes, Peer], "bool | Fault"]


def _host(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    if fields.host is not None:
        return _TWO_HOSTS
    fields.host = value
    fields.host_at = len(fields.kept)
    return True


def _content_length(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    length = parse_length(value)
    if length is None or fields.length is not None:
        return _BAD_LENGTH
    fields.length = length
    return True


def _transfer_encoding(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    codings = tokens(value)
    if not fields.chunked and value.lower() == b"chunked":
        fields.chunked = True
        return False
    if not fields.chunked and len(codings) > 1 and codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
        # RFC 9112 §6.1: not understood is 501; taking the coding's name off and keeping its bytes would corrupt.
        return BAD_CODING("The only transfer coding understood is chunked.")
    return _BAD_CHUNKED


def _connection(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.nominated += tokens(value)
    return False


def _upgrade(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.upgrade = value if fields.upgrade is None else fields.upgrade + b", " + value
    return False


def _expect(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    if value.lower() == b"100-continue":
        fields.expect_continue = True
    else:
        fields.odd_expectation = True  # refused later: from HTTP/1.0 it is ignored
    return False


def _te(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.trailers_welcome |= b"trailers" in tokens(value)
    return False


def _trailer(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.trailer = value if fields.trailer is None else fields.trailer + b", " + value
    return False  # trailers belong to a hop, and most routes drop them


def _authorization(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.credentials |= binds_connection(value)
    return True


def _websocket_key(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.websocket_key = value if fields.websocket_key is None else b""
    return True


def _via(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.via = value if fields.via is None else fields.via + b", " + value
    return True


def _max_forwards(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.max_forwards = value if fields.max_forwards is None else b""
    return True


def _request_id(fields: RequestFields, value: bytes, peer: Peer) -> bool | Fault:
    if peer.trusted and _REQUEST_ID.fullmatch(value):
        fields.request_id = value
    return False


def _user_agent(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.user_agent = value
    return True


def _referer(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.referer = value
    return True


def _traceparent(fields: RequestFields, value: bytes, _: Peer) -> bool | Fault:
    fields.traceparent = value
    return True


def _forwarded_for(fields: RequestFields, value: bytes, peer: Peer) -> bool | Fault:
    if not peer.trusted:
        return _disbelieve(fields, b"x-forwarded-for")
    fields.forwarded_for = value if fields.forwarded_for is None else fields.forwarded_for + b", " + value
    return False


# Of several values, in one line or in many, the last one counts: that is the one which the peer itself added.


def _forwarded_proto(fields: RequestFields, value: bytes, peer: Peer) -> bool | Fault:
    scheme = _last(value).lower()
    fields.forwarded_proto = None
    if b"x-forwarded-proto" not in peer.believed or scheme not in _SCHEMES:
        return _disbelieve(fields, b"x-forwarded-proto")
    fields.forwarded_proto = scheme
    return False


def _forwarded_host(fields: RequestFields, value: bytes, peer: Peer) -> bool | Fault:
    host = _last(value)
    fields.forwarded_host = None
    if b"x-forwarded-host" not in peer.believed or parse_host(host) is None:
        return _disbelieve(fields, b"x-forwarded-host")
    fields.forwarded_host = host
    return False


def _forwarded_port(fields: RequestFields, value: bytes, peer: Peer) -> bool | Fault:
    port = _last(value)
    fields.forwarded_port = None
    if b"x-forwarded-port" not in peer.believed or not (port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        return _disbelieve(fields, b"x-forwarded-port")
    fields.forwarded_port = port
    return False


def _forwarded_prefix(fields: RequestFields, value: bytes, peer: Peer) -> bool | Fault:
    prefix = _last(value)
    fields.forwarded_prefix = None
    if b"x-forwarded-prefix" not in peer.believed or _PREFIX.fullmatch(prefix) is None:
        return _disbelieve(fields, b"x-forwarded-prefix")
    fields.forwarded_prefix = prefix.rstrip(b"/")
    return False


def _last(value: bytes) -> bytes:
    return value.rpartition(b",")[2].strip(b" \t")


def _disbelieve(fields: RequestFields, name: bytes) -> bool:
    fields.disbelieved |= {name}
    return False


def _statement(name: bytes) -> _Take:
    """Return the treatment of a statement that is passed on as it came, if the peer is believed about it."""

    def take(fields: RequestFields, _value: bytes, peer: Peer) -> bool | Fault:
        return name in peer.believed or _disbelieve(fields, name)

    return take


def _alias(folded: bytes) -> _Take:
    """Return the treatment of a name that some servers cannot tell from `folded`."""

    def take(_fields: RequestFields, _value: bytes, peer: Peer) -> bool | Fault:
        return folded not in peer.trust.decisive

    return take


def _drop(_: RequestFields, _value: bytes, _peer: Peer) -> bool | Fault:
    return False


def _malformed(_: RequestFields, line: bytes, _peer: Peer) -> bool | Fault:
    if line.translate(None, VALUE_BYTES):
        return BAD_BYTES
    return _BAD_NAME if b":" in line else _NO_COLON


_TAKES: Final[dict[bytes, _Take | None]] = {
    **dict.fromkeys(HOP_BY_HOP, _drop),
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"upgrade": _upgrade,
    b"expect": _expect,
    b"te": _te,
    b"trailer": _trailer,
    b"authorization": _authorization,
    b"sec-websocket-key": _websocket_key,
    b"via": _via,
    b"max-forwards": _max_forwards,
    b"x-request-id": _request_id,
    b"user-agent": _user_agent,
    b"referer": _referer,
    b"traceparent": _traceparent,
    b"x-forwarded-for": _forwarded_for,
    b"x-forwarded-proto": _forwarded_proto,
    b"x-forwarded-host": _forwarded_host,
    b"x-forwarded-port": _forwarded_port,
    b"x-forwarded-prefix": _forwarded_prefix,
    **{name: _statement(name) for name in MADE_HERE},  # nobody is believed about these
}


def _take_unlisted(name: bytes) -> _Take | None:
    """Return the treatment of a name that is not in the table: statements, the gateway's own namespace, aliases."""
    folded = fold(name)
    if folded.startswith(OWN_FAMILY):
        return _drop
    if is_statement(folded):
        return _statement(name) if name == folded else _drop
    if folded == name:
        return None
    # Nobody is believed about an alias: what it is an alias of would have been sent under its name.
    return _drop if folded in _TAKES or folded in GUARDED else _alias(folded)


# What the gateway only looks at is the client's to take away.
_REMOVABLE: Final = frozenset((b"user-agent", b"referer", b"traceparent"))
_LINES: Final[Lines[_Take]] = Lines(_TAKES, _malformed, _take_unlisted, _REMOVABLE)


def parse_request_block(block: bytes, method: bytes, peer: Peer) -> RequestFields | Fault:
    """Analyse the field section of a request that `peer` has sent.

    Statements about the request that the peer is not believed about are dropped however they are spelt, so that nothing
    behind the gateway can be told a false address, user or host.
    """
    fields = RequestFields(split_block(block))
    kept = fields.kept
    for line in fields.lines:
        meaning = _LINES[line]
        if isinstance(meaning, bytes):
            kept.append(meaning)
            continue
        take, value, passed_on = meaning
        verdict = take(fields, value, peer)
        if verdict is True:
            kept.append(passed_on)
        elif verdict is not False:
            return verdict
    forwarded_for = fields.forwarded_for
    fields.client_address = peer.address if forwarded_for is None else peer.trust.client_of(peer, forwarded_for)
    return _complete(fields, method)


def _complete(fields: RequestFields, method: bytes) -> RequestFields | Fault:
    """Decide what only the whole section can tell, and lay out what is passed on."""
    if fields.chunked and fields.length is not None:
        return _BAD_FRAMING
    if fields.nominated:
        _apply_connection(fields)
    elif fields.upgrade is not None:
        fields.upgrade = None  # RFC 9110 §7.8: Upgrade counts only if Connection names it
    if fields.upgrade is not None:
        flaw = _judge_upgrade(fields, method)
        if flaw is not None:
            return flaw
    if fields.chunked or fields.expect_continue or fields.trailers_welcome:
        fields.hop = hop_lines(fields)
    fields.plain = not (
        fields.chunked
        or fields.length
        or fields.credentials
        or fields.upgrade is not None
        or fields.trailer is not None
        or fields.forwarded_prefix is not None
        or fields.max_forwards is not None
    )
    fields.forward = join_block(fields.kept)
    fields.suspect = not fields.host or fields.odd_expectation
    return fields


def _judge_upgrade(fields: RequestFields, method: bytes) -> Fault | None:
    """Keep what may be offered of the protocols that were asked for, or say why the request is refused.

    RFC 9110 §7.8: an upgrade may be ignored; the request is then served as it stands. With a body it is: servers differ
    on whether what follows the head is the body, the next request, or already the other protocol.
    """
    if fields.wants_websocket:
        if method != b"GET" or not _is_websocket_key(fields.websocket_key):
            return _BAD_KEY  # RFC 6455 §4.1 and §4.2.1
        if fields.has_body:
            return _HANDSHAKE_BODY  # no client sends one, so nothing is gained by guessing what it is
    if fields.has_body:
        fields.upgrade = None
    else:
        rest = [part for part in _listed(fields.upgrade or b"") if protocol_name(part) not in _H2]
        fields.upgrade = b", ".join(rest) or None
    return None


def protocol_name(protocol: bytes) -> bytes:
    """Return the lower-case name of a protocol in an Upgrade field, less its version (RFC 9110 §7.8)."""
    return protocol.partition(b"/")[0].strip(b" \t").lower()


def protocols(upgrade: bytes) -> tuple[bytes, ...]:
    """Return the names of the protocols in an Upgrade field."""
    return tuple(map(protocol_name, _listed(upgrade)))


def offered(upgrade: bytes | None, allowed: frozenset[bytes]) -> bytes | None:
    """Return an Upgrade field with only the protocols whose names are `allowed`, as they were spelt; None for none."""
    if upgrade is None:
        return None
    return b", ".join(part for part in _listed(upgrade) if protocol_name(part) in allowed) or None


def _listed(value: bytes) -> list[bytes]:
    return [part for part in (part.strip(b" \t") for part in value.split(b",")) if part]


def hop_lines(
    fields: RequestFields,
    *,
    old: bool = False,
    reasons: int = 0,
    upgrades: frozenset[bytes] = frozenset(),
    trailers: bool = False,
    continued: bool = False,
    length: int | None = None,
) -> bytes:
    """Return the lines of our own hop to the target with the empty line behind them.

    `reasons` (see `reuse`) say what about the request needs care; `upgrades` are the protocols that may be offered, and
    `trailers` says that those of the request are passed on. `old`: the client speaks HTTP/1.0. `continued`: it has been
    told to send its body. `length` is that of a chunked body which has been gathered: it goes in place of chunks, and
    with it neither trailers nor an expectation.
    """
    lines, options = b"", []
    if reasons & Reason.BODY:
        # Told that the connection ends, a target that leaves the body unread does not take it for a request either.
        # It is told so by that word alone: some (Python's http.server) know no lists there.
        options.append(b"close")
    if not old:  # RFC 9110 §10.1.1, §7.8: it neither expects nor upgrades; it has no chunks either
        if length is not None:
            lines = b"\r\nContent-Length: %d" % length
        elif fields.chunked:
            lines = b"\r\nTransfer-Encoding: chunked"
        if fields.expect_continue and fields.has_body and not continued and length is None:
            lines += b"\r\nExpect: 100-continue"
        if trailers and fields.trailer is not None and length is None:
            lines += b"\r\nTrailer: " + fields.trailer
        upgrade = offered(fields.upgrade, upgrades)
        if upgrade is not None:
            options.append(b"Upgrade")
            lines += b"\r\nUpgrade: " + upgrade
        if fields.trailers_welcome and not reasons & Reason.BODY:
            options.append(b"TE")
            lines += b"\r\nTE: trailers"
    return lines + (b"\r\nConnection: " + b", ".join(options) if options else b"") + _NO_HOP


def _apply_connection(fields: RequestFields) -> None:
    """Act on the Connection options: persistence, and the fields that were meant for this hop only."""
    options = frozenset(fields.nominated)
    fields.close = b"close" in options
    fields.keep_alive = b"keep-alive" in options
    if b"upgrade" not in options:
        fields.upgrade = None
    doomed = _LINES.nominated(options)
    if doomed:
        before = len(without(fields.kept[: fields.host_at], doomed))
        fields.kept = without(fields.kept, doomed)
        fields.host_at = before


def _is_websocket_key(key: bytes | None) -> bool:
    try:
        return key is not None and len(key) == 24 and len(b64decode(key, validate=True)) == 16
    except Base64Error:
        return False


def seeming(head: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what a head that was refused or is not complete seems to say: method, target, host; b"" if it does not.

    For people who look for the reason; nothing may be decided by it.
    """
    line, _, block = head[:_SEEMING_BYTES].partition(CRLF)
    method, blank, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if not target and not version.startswith(b"HTTP/"):
        target = version  # the line was cut before its version
    fields = (field.partition(b":") for field in block.split(CRLF))
    host = next((value.strip(b" \t") for name, _, value in fields if name.lower() == b"host"), b"")
    return method[:METHOD_BYTES] if blank else b"", target, host[:_HOST_BYTES]

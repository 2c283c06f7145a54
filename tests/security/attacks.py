"""The attacks: what an attacker sends on one connection, by family.

What is hidden asks for `/admin/TAG`, which the gateway itself answers with 403; what is sent openly asks for `/m/…/TAG`
or for a behaviour of the application (see `apps/who.py`).
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from tests.support.corpus import CORPUS, unescape

CRLF = b"\r\n"
# The tag of attacks that are built once for a route; a try replaces it by its own.
BUILT_TAG = "t0000000x"
_KEY = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")
_H2C = (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
_CHUNKED = b"Transfer-Encoding: chunked"
# How clients write an upgrade that no target may be trusted with, when a body follows.
UPGRADES: dict[str, tuple[bytes, ...]] = {
    "foo": (b"Upgrade: foo", b"Connection: Upgrade"),
    "websocket": (b"Upgrade: websocket", b"Connection: Upgrade", *_KEY),
    "websocket in capitals": (b"UPGRADE: WebSocket", b"CONNECTION: UPGRADE", *_KEY),
    "websocket without a key": (b"Upgrade: websocket", b"Connection: Upgrade"),
    "websocket after keep-alive": (b"Upgrade: websocket", b"Connection: keep-alive, Upgrade", *_KEY),
    "two protocols": (b"Upgrade: websocket, foo", b"Connection: Upgrade", *_KEY),
    "two protocols on two lines": (b"Upgrade: foo", b"Upgrade: websocket", b"Connection: Upgrade", *_KEY),
    "two Connection lines": (b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: websocket", *_KEY),
    "h2c": _H2C,
    "HTTP/2.0": (b"Upgrade: HTTP/2.0", b"Connection: Upgrade"),
    "TLS/1.2": (b"Upgrade: TLS/1.2", b"Connection: Upgrade"),
    "without Connection": (b"Upgrade: foo",),
    "Connection alone": (b"Connection: Upgrade",),
}
# Methods whose bodies some servers do not read.
BODILESS = ("GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "FOO")


@dataclass(frozen=True)
class Attack:
    """One attack: an answer is waited for between its parts.

    `lazy` says that it needs an application which leaves the body of a POST or PUT unread.
    """

    name: str
    parts: tuple[bytes, ...]
    lazy: bool = False

    def tagged(self, tag: str) -> "Attack":
        """Return the same with a tag of its own, which is as long as the one it was built with."""
        return replace(self, parts=tuple(part.replace(BUILT_TAG.encode(), tag.encode()) for part in self.parts))

    @property
    def posts(self) -> bool:
        """Whether it needs a POST or PUT at all."""
        return any(b"POST " in part or b"PUT " in part for part in self.parts)


class Words:
    """What the attacks on one route are made of; `tag` makes each try its own."""

    def __init__(self, host: str, tag: str) -> None:
        self.host, self.tag = host.encode(), tag.encode()
        self.hidden = b"GET /admin/%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (self.tag, self.host)
        # The next request's first line becomes the value of a field, and the next client's cookies go with it.
        self.open = b"GET /admin/%b HTTP/1.1\r\nX-Swallow: " % self.tag
        stolen = b'{"stolen":"%b"}' % self.tag
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(stolen), stolen)

    def head(self, method: str, path: str, *fields: bytes) -> bytes:
        """A request's head; the tag is put behind the path."""
        start = b"%b %b HTTP/1.1" % (method.encode(), path.encode().replace(b"TAG", self.tag))
        return CRLF.join((start, b"Host: " + self.host, *fields, b"", b""))

    def framed(self, method: str, path: str, body: bytes, *fields: bytes) -> bytes:
        """A request with a body, which its length announces."""
        return self.head(method, path, *fields, b"Content-Length: %d" % len(body)) + body

    def chunked(self, method: str, path: str, body: bytes, *fields: bytes, trailers: tuple[bytes, ...] = ()) -> bytes:
        """A request with a body in one chunk, and trailers."""
        end = b"".join(line + CRLF for line in trailers)
        return self.head(method, path, *fields, _CHUNKED) + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, end)


def upgrades(words: Words) -> Iterator[Attack]:
    """An upgrade that the server ignores or refuses, and what it then takes for the next request."""
    for name, fields in UPGRADES.items():
        for method in ("GET", "POST"):
            for hidden in (words.hidden, words.open):
                how = "whole" if hidden is words.hidden else "open"
                yield Attack(f"{method} {name}, {how}", (words.framed(method, "/m/TAG", hidden, *fields),))
            yield Attack(f"{method} {name}, chunked", (words.chunked(method, "/m/TAG", words.hidden, *fields),))
            size_line = b"GET /admin/%b HTTP/1.1\r\n\r\n" % words.tag
            yield Attack(f"{method} {name}, in chunks", (words.chunked(method, "/m/TAG", size_line, *fields),))
        yield Attack(f"{name}, glued", (words.head("GET", "/m/TAG", *fields) + words.hidden,))
        yield Attack(f"{name}, behind the answer", (words.head("GET", "/m/TAG", *fields), words.hidden, words.open))
        late = words.head("POST", "/m/TAG", *fields, b"Content-Length: %d" % len(words.hidden))
        yield Attack(f"POST {name}, body behind the answer", (late, words.hidden))
        expecting = words.head("POST", "/m/TAG", *fields, b"Expect: 100-continue", b"Content-Length: 46")
        yield Attack(f"POST {name}, expecting", (expecting, words.hidden))


def trailers(words: Words) -> Iterator[Attack]:
    """Trailers that are a request line to a server that does not read them."""
    line = b"X: /admin/%b HTTP/1.1" % words.tag
    blocks: dict[str, tuple[bytes, ...]] = {
        "one": (line,),
        "with a host": (line, b"Host: " + words.host),
        "many": (line,) * 20,
        "GET as a name": (b"GET: /admin/%b HTTP/1.1" % words.tag, b"Host: " + words.host),
        "PUT with a body": (b"PUT: /admin/%b HTTP/1.1" % words.tag, b"Content-Length: 5", b"Host: " + words.host),
        "framing": (b"Content-Length: 50", b"Transfer-Encoding: chunked", line),
        "a blank before": (b"X:\t /admin/%b HTTP/1.1" % words.tag,),
        "HTTP/1.0": (b"X: /admin/%b HTTP/1.0" % words.tag,),
        "behind a plain one": (b"X-Checksum: 1", line),
    }
    for name, block in blocks.items():
        for method, path in (("POST", "/m/TAG"), ("PUT", "/lazy/TAG"), ("POST", "/early/TAG"), ("GET", "/m/TAG")):
            unread = path.startswith("/lazy")
            yield Attack(f"{method} {path} {name}", (words.chunked(method, path, b"hello", trailers=block),), unread)
        announced = (b"Trailer: X", b"TE: trailers", b"Connection: TE")
        yield Attack(f"announced, {name}", (words.chunked("POST", "/m/TAG", b"hello", *announced, trailers=block),))
        empty = words.head("POST", "/m/TAG", _CHUNKED) + b"0\r\n"
        yield Attack(f"no chunk, {name}", (empty + b"".join(each + CRLF for each in block) + CRLF,))


def surplus(words: Words) -> Iterator[Attack]:
    """An answer that may not have a body, and an application that sends one, written by the attacker."""
    say = quote(words.answer)
    for late in ("", "&late=1"):
        for path in ("/m", "/204", "/304"):
            for method in ("HEAD", "GET"):
                if method == "HEAD" or path != "/m":
                    target = f"{path}/TAG?say={say}{late}"
                    yield Attack(f"{method} {path}{late}", (words.head(method, target),))
                    conditional = words.head(method, target, b"If-None-Match: *")
                    yield Attack(f"{method} {path}{late} twice", (conditional + words.head(method, target),))
        posted = words.framed("POST", f"/204/TAG?say={say}{late}", b"hello")
        yield Attack(f"POST /204{late}", (posted,))


def unread(words: Words) -> Iterator[Attack]:
    """A body that the server leaves where it is, to be found by whoever comes next."""
    for method in BODILESS:
        for path in ("/m/TAG", "/lazy/TAG", "/early/TAG", "/204/TAG", "/304/TAG"):
            for hidden in (words.hidden, words.open):
                how = f"{method} {path} {'whole' if hidden is words.hidden else 'open'}"
                yield Attack(how, (words.framed(method, path, hidden),))
            yield Attack(f"{method} {path} chunked", (words.chunked(method, path, words.hidden),))
            options = (b"TE: trailers", b"Connection: TE, keep-alive", b"Keep-Alive: timeout=5")
            yield Attack(f"{method} {path} with options", (words.framed(method, path, words.hidden, *options),))
            late = words.head(method, path, b"Content-Length: %d" % len(words.hidden))
            yield Attack(f"{method} {path}, behind the answer", (late, words.hidden))
    for path in ("/lazy/TAG", "/early/TAG"):
        for fields in ((), (b"Expect: 100-continue",)):
            for hidden in (words.hidden, words.open):
                how = f"POST {path} {'expecting ' * bool(fields)}{'whole' if hidden is words.hidden else 'open'}"
                yield Attack(how, (words.framed("POST", path, hidden, *fields),), lazy=True)
                late = words.head("POST", path, *fields, b"Content-Length: %d" % len(hidden))
                yield Attack(f"{how}, behind the answer", (late, hidden), lazy=True)
                padded = words.head("POST", path, *fields, b"Content-Length: %d" % (len(hidden) + 70000))
                yield Attack(f"{how}, behind much", (padded + b"a" * 70000, hidden), lazy=True)
            yield Attack(
                f"POST {path} {'expecting ' * bool(fields)}chunked",
                (words.chunked("POST", path, words.hidden, *fields),),
                lazy=True,
            )


def framing(words: Words) -> Iterator[Attack]:
    """Messages that two readers could frame differently, written for two readers each."""
    cl, hidden, size = b"Content-Length: ", words.hidden, len(words.hidden)
    whole = b"0\r\n\r\n" + hidden
    lengths = {
        "plus": b"+%d", "minus": b"-%d", "hex": b"0x%x", "octal": b"0o%o", "underscore": b"%d_0", "list": b"%d, 0",
        "list backwards": b"0, %d", "equal list": b"%d, %d", "decimal": b"%d.0", "trailing": b"%d;", "blank": b"%d 0",
        "vertical tab": b"\x0b%d", "NUL": b"%d\x00", "quoted": b'"%d"', "arabic": b"\xd9\xa3%d",
    }  # fmt: skip
    for name, written in lengths.items():
        value = written % ((size,) * written.count(b"%"))
        yield Attack(f"length {name}", (words.head("POST", "/m/TAG", cl + value) + hidden,))
    pairs: dict[str, tuple[bytes, ...]] = {
        "length and coding": (cl + b"%d" % len(whole), _CHUNKED),
        "coding and length": (_CHUNKED, cl + b"%d" % len(whole)),
        "zero and length": (cl + b"0", cl + b"%d" % len(whole)),
        "length and zero": (cl + b"%d" % len(whole), cl + b"0"),
        "blank before the colon": (b"Content-Length : %d" % len(whole), _CHUNKED),
        "coding, blank before the colon": (cl + b"%d" % len(whole), b"Transfer-Encoding : chunked"),
        "coding folded": (cl + b"%d" % len(whole), b"Transfer-Encoding:\r\n chunked"),
        "folded behind another": (b"X: a\r\n Transfer-Encoding: chunked", cl + b"%d" % len(whole)),
        "coding behind a bare LF": (b"X: a\nTransfer-Encoding: chunked", cl + b"%d" % len(whole)),
        "coding behind a bare CR": (b"X: a\rTransfer-Encoding: chunked", cl + b"%d" % len(whole)),
        "length behind a bare LF": (_CHUNKED, b"X: a\nContent-Length: %d" % len(whole)),
        "coding in an alias": (b"Transfer_Encoding: chunked", cl + b"%d" % len(whole)),
        "length in an alias": (b"Content_Length: %d" % len(whole),),
        "length in an odd alias": (b"Content!Length: %d" % len(whole),),
        "identity": (b"Transfer-Encoding: identity", cl + b"%d" % len(whole)),
        "xchunked": (b"Transfer-Encoding: xchunked", cl + b"%d" % len(whole)),
        "chunked twice": (_CHUNKED, _CHUNKED, cl + b"%d" % len(whole)),
        "a vertical tab": (b"Transfer-Encoding: \x0bchunked", cl + b"%d" % len(whole)),
        "NUL in a name": (b"Content-Length\x00: 0", cl + b"%d" % len(whole)),
        "a name without a colon": (b"Content-Length", cl + b"%d" % len(whole)),
        "hop-by-hop length": (b"Connection: content-length", cl + b"%d" % len(whole)),
        "hop-by-hop coding": (b"Connection: transfer-encoding", _CHUNKED),
        "an expected body": (b"Expect: 100-continue", cl + b"%d" % len(whole)),
    }
    for name, fields in pairs.items():
        for method in ("POST", "GET"):
            yield Attack(f"{method} {name}", (words.head(method, "/m/TAG", *fields) + whole,))
    yield from _chunks(words)
    yield from _request_lines(words)


def _chunks(words: Words) -> Iterator[Attack]:
    """Sizes, extensions and ends of chunks that are read in more than one way."""
    head, hidden = words.head("POST", "/m/TAG", _CHUNKED), words.hidden
    size = b"%x" % len(hidden)
    sizes = {
        "0x": b"0x" + size, "plus": b"+" + size, "minus": b"-0", "blank before": b" " + size,
        "blank behind": size + b" ", "underscore": size[:1] + b"_" + size[1:], "none": b"",
        "17 digits": b"1" + size.rjust(16, b"0"), "huge": b"f" * 16,
        "extension": size + b";a=b", "quoted extension": size + b';a="\r\n"', "bare LF in it": size + b";a\nb",
        "bare CR in it": size + b";a\rb", "NUL in it": size + b";\x00", "long": size + b";" + b"a" * 5000,
    }  # fmt: skip
    for name, line in sizes.items():
        yield Attack(f"chunk size {name}", (head + line + CRLF + hidden + b"\r\n0\r\n\r\n",))
    for name, end in {"LF": b"\n", "CR": b"\r", "none": b"", "two LF": b"\n\n", "blank": b" \r\n"}.items():
        yield Attack(f"chunk line ends with {name}", (head + size + end + hidden + b"\r\n0\r\n\r\n",))
        yield Attack(f"chunk data ends with {name}", (head + b"5\r\nhello" + end + b"0\r\n\r\n" + hidden,))
        yield Attack(f"last chunk ends with {name}", (head + b"5\r\nhello\r\n0" + end + b"\r\n" + hidden,))
    yield Attack("chunk too long", (head + b"3\r\nhello\r\n0\r\n\r\n" + hidden,))
    yield Attack("chunk too short", (head + b"9\r\nhello\r\n0\r\n\r\n" + hidden,))
    yield Attack("coding in HTTP/1.0", (head.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n" + hidden,))


def _request_lines(words: Words) -> Iterator[Attack]:
    """Request lines and hosts that are read in more than one way."""
    host, tag = words.host, words.tag
    lines = {
        "absolute": b"GET http://%b/m/%b HTTP/1.1" % (host, tag),
        "absolute, another host": b"GET http://elsewhere.test/m/%b HTTP/1.1" % tag,
        "absolute, userinfo": b"GET http://a@%b/m/%b HTTP/1.1" % (host, tag),
        "two blanks": b"GET  /m/%b HTTP/1.1" % tag,
        "a blank in it": b"GET /m/%b /admin/%b HTTP/1.1" % (tag, tag),
        "a tab": b"GET\t/m/%b\tHTTP/1.1" % tag,
        "no version": b"GET /m/%b" % tag,
        "another version": b"GET /m/%b HTTP/1.01" % tag,
        "a blank before": b" GET /m/%b HTTP/1.1" % tag,
        "a line before": b"\r\n\r\nGET /m/%b HTTP/1.1" % tag,
        "a bare LF": b"GET /m/%b HTTP/1.1\nX: y" % tag,
        "a bare CR": b"GET /m/%b HTTP/1.1\rX: y" % tag,
        "a fragment": b"GET /m/%b#/admin HTTP/1.1" % tag,
        "an encoded line end": b"GET /m/%b%%20HTTP/1.1%%0d%%0aX:%%20y HTTP/1.1" % tag,
        "a raw line end": b"GET /m/%b\x85\xa0 HTTP/1.1" % tag,
        "an asterisk": b"OPTIONS * HTTP/1.1",
        "an authority": b"CONNECT %b:80 HTTP/1.1" % host,
        "a lower-case method": b"get /m/%b HTTP/1.1" % tag,
        "an odd method": b"G:ET /m/%b HTTP/1.1" % tag,
        "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }
    for name, line in lines.items():
        head = line + b"\r\nHost: " + host + b"\r\n"
        yield Attack(f"request line with {name}", (head + CRLF,))
        announced = head + b"Content-Length: %d\r\n\r\n" % len(words.hidden)
        yield Attack(f"request line with {name}, and a body", (announced + words.hidden,))
    good = words.head("GET", "/m/TAG")
    yield Attack("three in one packet", (good + good.replace(b"/m/", b"/m/2") + words.hidden,))
    yield Attack("a bad one behind a good one", (good + b"GET /admin HTTP/1.1\r\n\r\n" + words.hidden,))
    yield Attack("cut in its head", (good[:-10],))
    yield Attack("cut in its body", (words.head("POST", "/m/TAG", b"Content-Length: 500") + words.hidden,))
    yield Attack("cut in a chunk", (words.head("POST", "/m/TAG", _CHUNKED) + b"1ff\r\n" + words.hidden,))


@functools.cache
def _corpus() -> tuple[tuple[str, bytes], ...]:
    return tuple((path.stem[:3], unescape(path.read_bytes())) for path in sorted(CORPUS.glob("*.http")))


def corpus(words: Words) -> Iterator[Attack]:
    """The conformance corpus, sent to this route; what hides in it is forbidden here."""
    for name, data in _corpus():
        yield Attack(
            f"corpus {name}", (data.replace(b"wire.test", words.host).replace(b"/hidden", b"/admin/" + words.tag),)
        )


FAMILIES: dict[str, Callable[[Words], Iterator[Attack]]] = {
    "upgrades": upgrades,
    "trailers": trailers,
    "surplus": surplus,
    "unread": unread,
    "framing": framing,
    "corpus": corpus,
}


@functools.cache
def attacks_on(host: str, family: str) -> tuple[Attack, ...]:
    """Return a family's attacks on a route, to be tagged."""
    return tuple(FAMILIES[family](Words(host, BUILT_TAG)))

"""What a request costs grows with its size and not faster: every pattern, and every parser of what strangers send.

A new pattern fails here until it is in one of two lists: `STRANGERS`, and then it is tried with hostile texts, or
`OURS`, for what only reads configuration.
"""

import ast
import contextlib
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

import pytest

import devhost_server
from devhost_server import secrecy, visible
from devhost_server.doors import tunnel
from devhost_server.echo import answers as echo_answers
from devhost_server.exchange import Exchange
from devhost_server.failures import BAD_REQUEST, Fault
from devhost_server.messages import chunked, fields, host, pages, paths, request_head, response_head
from devhost_server.messages import forwarding as forward
from devhost_server.messages.options import Limits
from devhost_server.messages.partial_head import PartialHead
from devhost_server.messages.trust import Trust
from devhost_server.observe import metrics
from devhost_server.observe.access_line import JsonLines
from devhost_server.observe.console_line import ConsoleLines
from tests.messages.test_pages import REFUSED

KIB: Final = 1024
SIZES: Final = (16 * KIB, 8 * 16 * KIB)
# Eight times the size may take eight times as long. Beyond that this much is forgiven to a busy machine and to memory
# that no longer fits into a cache; work that grows with the square takes 64 times as long.
FORGIVEN: Final = 3
# Nothing is judged by what takes less: it is over before a clock can tell.
TOO_SHORT: Final = 0.004

# Patterns that see what clients or targets send, what they are searched with, and those that only see configuration.
STRANGERS: Final = {
    "echo.answers": ("re.fullmatch(...)", "re.fullmatch(...)"),
    "messages.chunked": ("_SIZE", "_PADDED_SIZE"),
    "doors.http1": ("_EMPTY_LINES",),
    "messages.fields": ("TOKEN", "_BINDING", "_STRAY"),
    "messages.forwarding": ("_CLIMBS", "_MAX_FORWARDS", "_SLASHES"),
    "messages.host": ("_HOST",),
    "messages.pages": ("_ELEMENT", "_PARAMETER", "_QUALITY", "_RANGE", "_ADDRESS", "_REQUEST_ID"),
    "messages.request_head": ("_VERSION", "_ABSOLUTE", "_REQUEST_ID", "_PREFIX"),
    "observe.access_line": ("_WHOLE_ESCAPES",),
    "messages.trust": ("_NODE",),
    "messages.paths": ("_SLASHES", "_PARAMETERS", "_RAW_PARAMETERS", "_DOTS", "_FOLDED"),
    "secrecy": (
        "_PARAMETER",
        "_HINT",
        "_HINT_BYTES",
        "_DELIMITER",
        "_EQUALS",
        "_AT",
        "_USER",
        "_OPEN_AUTHORITY",
        "_BLANK",
        "_ESCAPE",
    ),
}
OURS: Final = ("admin.options", "config.", "options", "units", "upstream.options")
# Likewise, in modules that have patterns of both kinds.
OUR_OWN: Final = {"secrecy": ("_SECRET_KEY",)}
# Patterns that are searched for; the others only say whether a whole text is what they describe.
SEARCHED: Final = {
    "_BINDING", "_STRAY", "_EMPTY_LINES", "_CLIMBS", "_ELEMENT", "_PARAMETER", "_SLASHES", "_HINT", "_HINT_BYTES",
    "_DELIMITER", "_EQUALS", "_AT", "_USER", "_OPEN_AUTHORITY", "_BLANK", "_ESCAPE",
    "_PARAMETERS", "_RAW_PARAMETERS", "_DOTS", "_FOLDED",
}  # fmt: skip
# Patterns that are never given more than this: what is longer has been cut.
BOUNDED: Final = {"_ELEMENT": pages.MAX_ACCEPT, "_PARAMETER": pages.MAX_ACCEPT}


# -- the lists are complete --------------------------------------------------------------------------------------------


def modules() -> Iterator[tuple[str, Path]]:
    for found in pkgutil.walk_packages(devhost_server.__path__, "devhost_server."):
        path = Path(cast("Any", found.module_finder).path) / f"{found.name.rpartition('.')[2]}.py"
        if path.exists():
            yield found.name.removeprefix("devhost_server."), path


def uses_of_re(path: Path) -> Iterator[str]:
    """Yield the name that each compiled pattern of a module is given, and each use of one that has none."""
    tree = ast.parse(path.read_text())
    named = {}
    for node in ast.walk(tree):
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            named[id(node.value)] = target.id
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr != "escape":
            yield named.get(id(node), f"re.{node.func.attr}(...)")


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_pattern_is_in_a_list(module: str, path: Path) -> None:
    if module in OURS or module.startswith("config."):
        return
    assert sorted(uses_of_re(path)) == sorted((*STRANGERS.get(module, ()), *OUR_OWN.get(module, ())))


# -- patterns ----------------------------------------------------------------------------------------------------------

PIECES: Final = (
    "a", "0", "f", ".", "-", "/", "//", "/.", "/..", "..", "\\", "?", "&", "=", ";", "#", "@", ":", "%", "%25",
    "%2525", "%2f", "%3d", "%40", "%3a%2f%2f", ",", " ", "\t", '"', '\\"', "\r", "\n", "\r\n", "\r\r\n", "[",
    "]", "token", "a=", "=a", "&a=", ";a", ';a="', ';a="\\"', '";', "://a", "/=%", "?a=1;", "\\u0000", "\\\\",
)  # fmt: skip
BEFORE: Final = ("", "/=%", "http://", '"', ";a=")
BEHIND: Final = ("", "\x00", "@")


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for module, names in STRANGERS.items():
        for name in names:
            if not name.startswith("re."):
                yield name, getattr(importlib.import_module(f"devhost_server.{module}"), name)


def took(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def grows_no_faster(work: Callable[[int], Callable[[], object]]) -> tuple[bool, list[float]]:
    """Time the work that is made for each size, until it is seen once that it grows with the size and not faster."""
    times: list[float] = []
    for _ in range(4):
        jobs = [work(size) for size in SIZES]
        again = [took(job) for job in jobs]
        times = list(map(min, times, again)) if times else again
        if times[-1] < TOO_SHORT or times[-1] <= FORGIVEN * max(times[0], TOO_SHORT / 8) * SIZES[-1] / SIZES[0]:
            return True, times
    return False, times


def everything(name: str, pattern: re.Pattern[Any], text: Any) -> None:
    """Do with a pattern all that code does with patterns."""
    pattern.fullmatch(text)
    pattern.match(text)
    if name in SEARCHED:
        for _ in pattern.finditer(text):
            pass


@pytest.mark.parametrize(("name", "pattern"), [pytest.param(*found, id=found[0]) for found in patterns()])
def test_a_pattern_is_linear(name: str, pattern: re.Pattern[Any]) -> None:
    for before, piece, behind in product(BEFORE, PIECES, BEHIND):

        def text(size: int, before: str = before, piece: str = piece, behind: str = behind) -> Any:
            whole = before + piece * (min(size, BOUNDED.get(name, size)) // len(piece)) + behind
            return whole.encode("latin-1") if isinstance(pattern.pattern, bytes) else whole

        # What takes no time at 16 KiB would take a second if it grew with the square.
        if took(lambda text=text: everything(name, pattern, text(SIZES[0]))) > 2 * TOO_SHORT:  # type: ignore[misc]
            linear, times = grows_no_faster(lambda size, text=text: lambda: everything(name, pattern, text(size)))  # type: ignore[misc]
            assert linear, (before, piece, behind, times)


def test_this_test_would_notice() -> None:
    hostile = re.compile(r"([?&;#])([^=&;#]*)=([^&#]*)")
    linear, _ = grows_no_faster(lambda size: lambda: everything("_USER", hostile, "/=%" + "?" * (size // 32)))
    assert not linear


# -- parsers -----------------------------------------------------------------------------------------------------------


def logged(form: Any, **texts: bytes) -> Callable[[], object]:
    told = request_head.RequestFields([])
    told.user_agent = told.referer = told.traceparent = texts["text"]
    x = Exchange(cast("Any", None), texts["text"][:32], texts["text"], told, 0.0)
    x.host, x.request_id, x.client_address, x.status = texts["text"], b"id", b"127.0.0.1", 200
    return lambda: form.line(x)


def refused(text: bytes) -> Callable[[], object]:
    shown = text.decode("utf-8", "surrogateescape")
    facts = pages.Facts(**{name: getattr(REFUSED, name) for name in pages.Facts.__slots__} | {
        "target": shown, "host": shown, "detail": shown, "tried": (shown,) * 3,
    })  # fmt: skip
    return lambda: (pages.render(facts, b"text/html," + text), pages.render(facts, text))


def dribbled_head(text: bytes) -> Callable[[], object]:
    def feed() -> None:
        head = PartialHead(Limits(head=1 << 20, target=1 << 20, headers=10_000))
        for at in range(len(text)):
            head.feed(text[at : at + 1])
            if isinstance(head.judge(), Fault):
                break

    return feed


def dribbled_body(text: bytes, before: bytes) -> Callable[[], object]:
    def feed() -> None:
        decoder = chunked.ChunkedDecoder(1 << 20, 100_000)
        decoder.feed(before)
        with contextlib.suppress(chunked.ChunkedError):
            for at in range(len(text)):
                decoder.feed(text[at : at + 1])

    return feed


def body(text: bytes) -> Callable[[], object]:
    def feed() -> None:
        for padded in (False, True):
            with contextlib.suppress(chunked.ChunkedError):
                chunked.ChunkedDecoder(1 << 20, 100_000, padded=padded).feed(text)

    return feed


TRUSTED = Trust((ip_network("10.0.0.0/8"), ip_network("::/0")), frozenset((b"x-forwarded-host", b"x-forwarded-prefix")))
PROXY = TRUSTED.peer("10.0.0.1")


PARSERS: Final[dict[str, Callable[[bytes], Callable[[], object]]]] = {
    "access log": lambda text: logged(JsonLines(0), text=text),
    "access log on a terminal": lambda text: logged(ConsoleLines(), text=text),
    "error page": refused,
    "masking": lambda text: (
        lambda: (
            secrecy.without_secrets(text.decode("latin-1"), cut=True),
            secrecy.without_secrets(text.decode("latin-1"), prose=True),
        )
    ),
    "visible": lambda text: (
        lambda: (visible.visible(text.decode("latin-1")), visible.json_string(text.decode("latin-1")))
    ),
    "request line": lambda text: (
        lambda: (
            request_head.parse_request_line(b"GET /" + text + b" HTTP/1.1"),
            request_head.parse_request_line(b"GET http://" + text + b" HTTP/1.1"),
            request_head.parse_request_line(text),
            request_head.seeming(text),
        )
    ),
    "request fields": lambda text: (
        lambda: [
            request_head.parse_request_block(b"\r\nHost: a" + before + text, b"GET", PROXY)
            for before in (
                b"\r\n",
                b"\r\nConnection: ",
                b"\r\nVia: ",
                b"\r\nCookie: ",
                b"\r\nTE: ",
                b"\r\nUpgrade: h2c, ",
                b"\r\nConnection: upgrade\r\nUpgrade: h2c,",
                b"\r\nX-Request-ID: ",
                b"\r\nX-Forwarded-Host: ",
                b"\r\nX-Forwarded-Prefix: /",
                b"\r\nTransfer-Encoding: ",
            )
        ]
    ),
    "response": lambda text: (
        lambda: [
            response_head.parse_response(b"HTTP/1.1 200 " + text[:99], b"\r\n" + before + text)
            for before in (b"", b"Connection: ", b"Set-Cookie: ", b"Transfer-Encoding: ", b"Upgrade: ")
        ]
    ),
    "trailers": lambda text: lambda: fields.filter_trailers(b"\r\n" + text),
    "tokens": lambda text: lambda: fields.tokens(text),
    "cleanness": lambda text: lambda: fields.is_clean(text, 0),
    "host": lambda text: lambda: (host.parse_host(text), host.parse_host(b"[" + text)),
    "path": lambda text: (
        lambda: (paths.normal_path(b"/" + text), paths.strict_flaw(b"/" + text), paths.other_readings(b"/./" + text))
    ),
    "rewriting": lambda text: lambda: forward.rewrite(b"/a/" + text, b"/a", b"/b"),
    "loops": lambda text: lambda: forward.loops(text, b"cafe1234"),
    "X-Forwarded-For": lambda text: lambda: TRUSTED.client_of(PROXY, text),
    "a head byte by byte": dribbled_head,
    "fields byte by byte": lambda text: dribbled_head(b"GET / HTTP/1.1\r\nA: " + text),
    "body": body,
    "chunks byte by byte": lambda text: dribbled_body(text, b""),
    "trailers byte by byte": lambda text: dribbled_body(text, b"0\r\nA: "),
    "frames": lambda text: lambda: tunnel.FrameFollower().follow(text),
    "Accept of a scrape": lambda text: lambda: metrics.wants_openmetrics(text.decode("latin-1")),
    "echo": lambda text: (
        lambda: (
            echo_answers.origin_form(text),
            echo_answers.parameter(text, "size"),
        )
    ),
}
HOSTILE: Final = (
    b"?", b"a", b"%", b"=", b"&a=", b"/", b"/..", b"/.", b"%2e%2e/", b"//", b",", b", ", b"a,", b"a, ", b"\r\n",
    b"\r\na:", b"\r\na: b", b"\r", b" ", b"\t", b'"', b'a;q="', b"@", b"//a@", b"://", b";a=1", b";token=",
    b"1;a\r\n", b"1\r\na\r\n", b"0000000000000001\r\na\r\n", b"\xff", b"\x00", b"\x81\x00", b"\x01",
    b"\xc2\x85", b"10.0.0.1,", b"::1, ", b"[::1]:1,", b"devhost,", b"close,", b"upgrade, ", b"/=%", b"?a=1;",
)  # fmt: skip


BYTE_BY_BYTE: Final = (b"a", b" ", b"\r\na: b", b"0000000000000001\r\na\r\n", b"1;a\r\na\r\n")


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_is_linear(name: str) -> None:
    for piece in BYTE_BY_BYTE if "byte by byte" in name else HOSTILE:

        def make(size: int, piece: bytes = piece) -> Callable[[], object]:
            return PARSERS[name](piece * (size // len(piece)))

        linear, times = grows_no_faster(make)
        assert linear, (piece, times)


def test_the_line_that_stopped_a_worker() -> None:
    text = b"/=%" + b"?" * 60_000
    assert took(logged(JsonLines(0), text=text)) < 0.1
    assert took(refused(text)) < 0.2
    assert isinstance(BAD_REQUEST("").detail, str)

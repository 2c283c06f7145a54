"""The bodies of answers that the gateway makes itself: a page for browsers, a problem document for everything else.

Both tell the same facts: what failed, on which route, who owns it, which target, what was tried, since when, and the
request id to ask about. Nothing here does I/O. Every fact may come from a client or an upstream, so it is made
presentable once (`presentable`) before either body is written: credentials masked, invisible characters spelled out,
long values cut.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final

import orjson

from devhost_server import secrecy
from devhost_server.visible import visible

HTML: Final = b"text/html; charset=utf-8"
PROBLEM: Final = b"application/problem+json"

MAX_TEXT: Final = 300
"""Characters of a value that are shown. A host has at most 253, a longer target is not read by a person."""
MAX_DETAIL: Final = 1000
MAX_TRIED: Final = 8
MAX_ACCEPT: Final = 4096
"""Bytes of Accept that are read; browsers send about 150."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a failed exchange. Text may hold anything a client sent, lone surrogates included."""

    status: int
    reason: str  # the status phrase, "Bad Gateway"
    flag: str  # as in the access log, "UF"
    error: str  # the RFC 9209 error type, "connection_refused"
    title: str  # what failed, without the particulars
    detail: str  # one sentence: what happened and what to do
    request_id: str
    method: str
    host: str | None
    target: str
    route: str | None
    owner: str | None
    upstream: str | None
    target_addr: str | None
    tried: tuple[str, ...]  # each "127.0.0.1:8000: connection refused after 1 ms"
    since: str | None  # RFC 3339: since when the target fails
    instance: str
    advice: str = ""  # the key of what to do, where error and flag do not say enough
    plain: bool = False  # for somebody who may know no more than status, title, detail and request id


def render(facts: Facts, accept: bytes | None) -> tuple[bytes, bytes]:
    """Return content type and body for a client that sent `accept` (its Accept lines joined by commas, or None).

    The page is given only to a client that likes HTML better than JSON: a script that says nothing, or `*/*`, gets
    the problem document.
    """
    shown = presentable(facts)
    if prefers_html(accept):
        return HTML, _page(shown).encode()
    return PROBLEM, _problem(shown)


POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The Content-Security-Policy of a page: it loads nothing, sends nothing, and stands in nobody's frame."""

_NEUTRAL: Final = {
    502: "The service cannot be reached",
    503: "The service is not available at the moment",
    504: "The service took too long to answer",
    508: "The request went round in a circle",
}


def neutral(status: int) -> tuple[str, str]:
    """Return title and detail of a failure for somebody who may not know what is behind the gateway."""
    title = _NEUTRAL.get(status, "The request could not be completed")
    return title, "Try again in a moment. If it lasts, give the request id to whoever runs this service."


# --- content negotiation (RFC 9110 §12.5.1) -------------------------------------------------------------------------

# A quote that is never closed takes the rest with it, so that nothing behind it is mistaken for a range.
_ELEMENT = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+', re.DOTALL)
_PARAMETER = re.compile(rb';[ \t]*([^=;" \t]+)=("(?:[^"\\]|\\.)*"|[^;" \t]*)[ \t]*')
_QUALITY = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_RANGE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_JSON_TYPES: Final = (b"application/problem+json", b"application/json")


def prefers_html(accept: bytes | None) -> bool:
    """Return whether `text/html` has a higher quality than JSON. Elements that are malformed count for nothing."""
    return accept is not None and _prefers_html(accept[:MAX_ACCEPT])


# Clients send the same few over and over, most of all when something is down: 128 of them are 512 KiB at the very most.
@lru_cache(128)
def _prefers_html(accept: bytes) -> bool:
    ranges = dict(_media_ranges(accept))
    liked_json = max(_quality(ranges, name) for name in _JSON_TYPES)
    liked_html = _quality(ranges, b"text/html")
    if liked_html != liked_json:
        return liked_html > liked_json
    # `text/html, */*` likes both as well, but has named only one of them.
    return liked_html > 0 and b"text/html" in ranges and not any(name in ranges for name in _JSON_TYPES)


def _media_ranges(accept: bytes) -> Iterator[tuple[bytes, float]]:
    """Yield each media range with its quality; ranges narrowed by parameters other than charset are passed over."""
    for element in _ELEMENT.findall(accept):
        name, semicolon, rest = element.partition(b";")
        parameters = {key.lower(): value for key, value in _PARAMETER.findall(semicolon + rest)}
        quality = parameters.pop(b"q", b"1")
        charset = parameters.pop(b"charset", b"utf-8").strip(b'"').lower()
        media_range = name.strip(b" \t").lower()
        if parameters or charset != b"utf-8" or not _RANGE.fullmatch(media_range) or not _QUALITY.fullmatch(quality):
            continue
        yield media_range, float(quality)


def _quality(ranges: dict[bytes, float], media_type: bytes) -> float:
    """Return the quality by the most specific range that matches; 0 if none does."""
    for name in (media_type, media_type.partition(b"/")[0] + b"/*", b"*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


# --- making facts presentable ---------------------------------------------------------------------------------------

# A longer text is a client's, and seldom comes again.
_REMEMBERED_LENGTH: Final = 256
_NAMES: Final = tuple(field.name for field in fields(Facts))


def presentable(facts: Facts) -> Facts:
    """Return the facts with credentials masked, characters that cannot be seen spelled out, and long values cut."""
    changed: dict[str, str | tuple[str, ...]] = {}
    for name in _NAMES:
        value = getattr(facts, name)
        if isinstance(value, str):
            shown = _presentable(value, MAX_DETAIL if name == "detail" else MAX_TEXT)
            if shown != value:
                changed[name] = shown
    tried = _presentable_list(facts.tried)
    if tried != facts.tried:
        changed["tried"] = tried
    if not changed:
        return facts
    return replace(facts, **changed)  # type: ignore[arg-type]  # the names and types are those of the fields themselves


def _presentable_list(values: tuple[str, ...]) -> tuple[str, ...]:
    shown = tuple(_presentable(value, MAX_TEXT) for value in values[:MAX_TRIED])
    hidden = len(values) - len(shown)
    return (*shown, f"and {hidden} more") if hidden > 0 else shown


def _presentable(text: str, limit: int) -> str:
    """Return a text as it is shown: cut before anything is searched in it, masked, cut to its limit, spelled out."""
    if len(text) <= _REMEMBERED_LENGTH:
        return _remembered(text, limit)
    if len(text) <= limit and "=" not in text and "@" not in text and "%" not in text and text.isprintable():
        return text
    cut = text[: secrecy.SHOWN_BYTES]
    shown = secrecy.without_secrets(cut, cut=len(cut) < len(text), prose=True)
    tail = f"… ({len(text)} characters)" if len(text) > len(cut) or len(shown) > limit else ""
    return visible(shown[:limit]) + tail


# Most texts are the same for thousands of refusals: titles, names of routes, addresses.
@lru_cache(256)
def _remembered(text: str, limit: int) -> str:
    shown = secrecy.without_secrets(text, prose=True)
    return visible(shown[:limit]) + (f"… ({len(text)} characters)" if len(shown) > limit else "")


# --- the problem document (RFC 9457) --------------------------------------------------------------------------------


def _problem(facts: Facts) -> bytes:
    """Return the problem document of presentable facts.

    The members have the names that the access log gives to the same facts, so that one can be looked up by the other.
    There is no page per type of problem, hence `about:blank`; the title nevertheless says more than the status
    phrase that RFC 9457 §4.2.1 recommends with it, because the phrase repeats what the status said already.
    """
    document = {
        "type": "about:blank",
        "title": facts.title,
        "status": facts.status,
        "detail": facts.detail,
        "flag": facts.flag,
        "request_id": facts.request_id,
    }
    if not facts.plain:
        document |= {
            "instance": facts.instance,
            "error": facts.error,
            "method": facts.method,
            "host": facts.host,
            "target": facts.target,
            "route": facts.route,
            "owner": facts.owner,
            "upstream": facts.upstream,
            "target_addr": facts.target_addr,
            "tried": facts.tried,
            "since": facts.since,
        }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


# --- the page -------------------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_AT_CLIENT: Final = frozenset({"BR", "RT", "TL", "DC"})
_AT_TARGET: Final = frozenset({"UF", "UC", "UP", "UH", "UT"})

_FAILED: Final = {
    "BR": "cannot be understood",
    "NR": "no route matches",
    "RT": "sent too slowly",
    "TL": "sent too much",
    "LO": "found a loop",
    "RL": "rate limit reached",
    "UF": "no connection",
    "UC": "closed without an answer",
    "UP": "invalid answer",
    "UH": "no healthy target",
    "UO": "no capacity left",
    "DR": "is stopping",
    "UT": "took too long",
}
# By the key that the failure gives, else by error where that says more, else by flag.
_NEXT: Final[dict[str, tuple[str, ...]]] = {
    "dns_error": ("Check the target's name for a slip, and that it resolves on the machine the gateway runs on.",),
    "tls_protocol_error": (
        "Check that the target speaks TLS on this port and that its certificate names it; <code>http://</code> if not.",
    ),
    "BR": ("Compare the request with what the client meant to send: <code>curl -v</code> prints it line by line.",),
    "NR": (
        "See which hosts and paths are routed: <code>devhost-server routes</code>.",
        "If the route is new, reload the gateway: <code>devhost-server reload</code>.",
    ),
    "RT": ("Look for a client that stops in the middle of its request, or a network that does.",),
    "TL": ("Send less, or raise the limit under <code>server.limits</code>.",),
    "LO": ("Look for a target that points back at this gateway: <code>devhost-server routes</code>.",),
    "RL": ("Wait for the time that <code>Retry-After</code> gives, then try again.",),
    "UF": (
        "Start the service, or see why it stopped.",
        "Check that it listens on the address the gateway uses, not only on another interface or port.",
    ),
    "UC": (
        "Read the log of the service at this time: it closed the connection before it had answered.",
        "A crash, a restart, or a worker killed for its memory looks like this.",
    ),
    "UP": ("Ask the target directly and look at what it sends; is it HTTP/1.1, and not TLS or HTTP/2?",),
    "UH": ("See the state of every target: <code>devhost-server status</code>.",),
    "UO": ("Try again in a moment; if it lasts, raise the upstream's <code>pool.max_connections</code>.",),
    # What fills a pool.
    "waiting": (
        "Read the log of the service: most of these connections wait for its answers, and more of them would wait too.",
        "If it can work on more at once, raise the upstream's <code>pool.max_connections</code>.",
    ),
    "uploads": (
        "Clients are still sending: uploads under way may hold half of <code>pool.max_connections</code>.",
        "Clients that send slowly are cut by <code>server.timeouts.body_rate</code>.",
    ),
    "answers": (
        "Most of these connections carry answers that go on: raise the upstream's <code>pool.max_connections</code>.",
        "A stream leaves the count only if its type is <code>text/event-stream</code>.",
    ),
    "owned": (
        "Clients that authenticate by NTLM or Negotiate need a connection each of <code>pool.max_connections</code>.",
    ),
    "connecting": ("Most of these connections are still being made: see whether the target accepts any.",),
    # What else may be full.
    "gateway full": ("If it lasts, raise <code>server.limits.connections</code> or <code>server.workers</code>.",),
    "client full": (
        "Ask for less at once, or raise <code>connections_per_client</code> and <code>in_flight_per_client</code>.",
    ),
    "bodies full": (
        "Try again in a moment: uploads to routes with <code>buffer_body</code> fill the memory for them.",
    ),
    "out of ports": (
        "Let targets keep connections open, so that fewer are made.",
        "Widen <code>net.ipv4.ip_local_port_range</code>, or the limit of open files.",
    ),
    "DR": ("Try again in a moment: the gateway is being stopped or replaced.",),
    "UT": (
        "Read the log of the service: is it busy, or waiting for something else?",
        "If it has a right to be slow, raise <code>timeouts</code> of the route or of its upstream.",
    ),
    "IE": ("Report this with the request id; the gateway's log has the rest.",),
}

# Contrast of every text colour on its ground is at least 4.5:1 (WCAG 2.2, 1.4.3), in both schemes.
_STYLE: Final = """\
:root{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--ink:#1b2230;--soft:#566074;--line:#dde1e8;
--bad:#b3261e;--bad-ground:#fdecea;--good:#1a6b3c;--code:#eef0f4}
@media (prefers-color-scheme:dark){:root{--ground:#12151b;--card:#1a1f28;--ink:#e8ebf1;--soft:#a3adbf;--line:#323a48;
--bad:#ff9b91;--bad-ground:#3a1d1c;--good:#7fd6a0;--code:#272e3a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;
overflow-wrap:anywhere}
main{max-width:50rem;margin:0 auto;padding:clamp(1.25rem,5vw,4rem) clamp(1rem,4vw,2rem) 1.5rem}
.status{margin:0 0 .75rem;color:var(--soft);font-size:.95rem}
.status b{display:inline-block;margin-right:.6rem;padding:.1rem .6rem;border-radius:.4rem;background:var(--bad-ground);
color:var(--bad);font-variant-numeric:tabular-nums}
h1{margin:0 0 .6rem;font-size:clamp(1.6rem,5vw,2.4rem);line-height:1.15;letter-spacing:-.02em;text-wrap:balance}
h2{margin:0 0 .6rem;font-size:1rem}
.detail{margin:0 0 1.75rem;font-size:1.1rem;text-wrap:pretty}
.way{display:grid;grid-template-columns:repeat(3,1fr);gap:.5rem;margin:0 0 1.25rem;padding:0;list-style:none}
.way li{position:relative;padding:.7rem .9rem .75rem;border:1px solid var(--line);border-top:3px solid var(--line);
border-radius:.5rem;background:var(--card);min-width:0}
.way .good{border-top-color:var(--good)}
.way .bad{border-color:var(--bad);background:var(--bad-ground)}
.way b{display:block;font-size:.85rem;font-weight:600;color:var(--soft)}
.way .good span{color:var(--good)}
.way .bad b,.way .bad span{color:var(--bad)}
.way span{font-weight:600}
section{margin:0 0 1rem;padding:1.1rem 1.25rem 1.2rem;border:1px solid var(--line);border-radius:.6rem;
background:var(--card)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.45rem 1.5rem;margin:0}
dt{color:var(--soft)}
dd{margin:0}
code,kbd{font:.9em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
ul code,.id{padding:.1em .4em;border-radius:.3rem;background:var(--code)}
.id{-webkit-user-select:all;user-select:all}
ul,ol{margin:0;padding-left:1.25rem}
li+li{margin-top:.35rem}
.way li+li{margin-top:0}
footer{margin-top:1.25rem;color:var(--soft);font-size:.85rem}
@media (max-width:34rem){.way{grid-template-columns:1fr}dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.6rem}}
"""


def _page(facts: Facts) -> str:
    """Return the page of presentable facts: whole in itself, without scripts, and allowed to load nothing."""
    status = f"{facts.status} {html.escape(facts.reason)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="{POLICY.rpartition("; ")[0]}">
<title>{status}: {html.escape(facts.title)}</title>
<link rel="icon" href="data:,">
<style>
{_STYLE}</style>
</head>
<body>
<main>
<p class="status"><b>{facts.status}</b>{html.escape(facts.reason)}</p>
<h1>{html.escape(facts.title)}</h1>
<p class="detail">{html.escape(facts.detail)}</p>
{_plain_rest(facts) if facts.plain else _rest(facts)}</main>
</body>
</html>
"""


def _plain_rest(facts: Facts) -> str:
    return f"""<section aria-labelledby="facts">
<h2 id="facts">What to refer to</h2>
<dl>
<dt>Request id</dt><dd><code class="id">{html.escape(facts.request_id)}</code></dd>
</dl>
</section>
<footer>Answered by the devhost gateway, not by the service behind it.</footer>
"""


def _rest(facts: Facts) -> str:
    return f"""{_way(facts)}
<section aria-labelledby="facts">
<h2 id="facts">What happened</h2>
<dl>
{_rows(facts)}
</dl>
</section>
{_tried(facts)}{_next(facts)}<footer>Answered by the devhost gateway {html.escape(facts.instance)}, not by the service \
behind it.</footer>
"""


def _way(facts: Facts) -> str:
    """Return the three stations of an exchange; the one that failed is marked by word and by colour."""
    failed = _failed_station(facts.flag)
    stations = (("Your browser", "sent the request"), ("Gateway", "took it"), (_target_name(facts), "reached"))
    items = []
    for number, (name, well) in enumerate(stations):
        state = "good" if number < failed else "bad" if number == failed else "idle"
        words = well if number < failed else _FAILED.get(facts.flag, "failed") if number == failed else "not reached"
        items.append(f'<li class="{state}"><b>{html.escape(name)}</b><span>{words}</span></li>')
    return f'<ol class="way" aria-label="How far the request came">\n{"".join(items)}\n</ol>'


def _failed_station(flag: str) -> int:
    return 0 if flag in _AT_CLIENT else 2 if flag in _AT_TARGET else 1


def _target_name(facts: Facts) -> str:
    return facts.target_addr or facts.upstream or "Service"


def _rows(facts: Facts) -> str:
    """Return the table of facts; one that is not known has no row."""
    since = facts.since and html.escape(facts.since)
    rows = (
        ("Request", _code(f"{facts.method} {facts.host or '(no host) '}{facts.target}")),
        ("Route", _code(facts.route)),
        ("Owner", facts.owner and html.escape(facts.owner)),
        ("Upstream", _code(facts.upstream)),
        ("Target", _code(facts.target_addr)),
        ("Failing since", since and f'<time datetime="{since}">{since}</time>'),
        ("Error", f"{_code(facts.error)} ({html.escape(facts.flag)})"),
        ("Request id", f'<code class="id">{html.escape(facts.request_id)}</code>'),
    )
    return "\n".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)


def _code(text: str | None) -> str | None:
    return text and f"<code>{html.escape(text)}</code>"


def _tried(facts: Facts) -> str:
    if not facts.tried:
        return ""
    items = "\n".join(f"<li><code>{html.escape(attempt)}</code></li>" for attempt in facts.tried)
    return f"""<section aria-labelledby="tried">
<h2 id="tried">What was tried</h2>
<ol>
{items}
</ol>
</section>
"""


def _next(facts: Facts) -> str:
    items = "\n".join(f"<li>{step}</li>" for step in _steps(facts))
    if not items:
        return ""
    return f"""<section aria-labelledby="next">
<h2 id="next">What to try next</h2>
<ul>
{items}
</ul>
</section>
"""


def _steps(facts: Facts) -> Iterator[str]:
    """Yield what a developer can do, as HTML; commands are given only where they can be pasted safely."""
    yield from _NEXT.get(facts.advice) or _NEXT.get(facts.error) or _NEXT.get(facts.flag, ())
    if _can_be_asked(facts):
        yield f"Ask the target without the gateway: <code>curl -v http://{facts.target_addr}/</code>."
    if facts.owner:
        yield f"Ask {html.escape(facts.owner)}, the owner of this route, and give them the request id."
    if _REQUEST_ID.fullmatch(facts.request_id):
        yield f"Find the request in the access log: <code>grep {facts.request_id}</code>."


def _can_be_asked(facts: Facts) -> bool:
    """Return whether the target is at a plain TCP address that curl can be pointed at."""
    if facts.target_addr is None or facts.flag not in _AT_TARGET or facts.error in {"dns_error", "tls_protocol_error"}:
        return False
    return _ADDRESS.fullmatch(facts.target_addr) is not None

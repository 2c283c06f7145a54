"""What a site decides about an upstream: its targets, and how they are reached."""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from devhost_server.options import Count, Flag, OneOrMore, Options, host_name, meant, socket_path
from devhost_server.units import Duration, PositiveDuration, Size, Written, quote

URL_ALLOWED: Final = "http://host:port, https://host:port or unix:/path, a base path after host:port if need be"
# A body is kept in memory, so there is a bound; a worker keeps four of these at most (`http.body_buffer`).
BUFFER_MAX: Final = 64 * 1024 * 1024
LATER_BALANCES: Final = frozenset({"least_requests", "random_two", "hash", "first"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LOCALHOST: Final = re.compile(r"https?://localhost\.?(?:[:/]|\Z)", re.IGNORECASE)
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")


def target_url(text: str) -> str:
    """Return a target's URL in canonical form: lower case, punycode, no default port, no trailing slash.

    Raises `ValueError` with a sentence, in which a password is never repeated.
    """
    if not text.isprintable() or " " in text:  # urlsplit would drop some of them without a word
        raise ValueError(f"{quote(text)} has spaces or control characters, which a URL cannot have")
    if text.startswith("unix:"):
        return f"unix:{socket_path(text)}"
    scheme, separator, rest = text.partition("://")
    if separator and "@" in rest.partition("/")[0]:
        raise ValueError("a URL with a user or password is not allowed: the client's own credentials are passed on")
    if not separator or scheme.lower() not in _DEFAULT_PORTS:
        raise ValueError(f"{quote(text)} is not a target: write {URL_ALLOWED}{_meant(text, scheme, separator)}")
    if "?" in text or "#" in text:
        raise ValueError(f"{quote(text)} has a query or a fragment, which a target cannot have: write {URL_ALLOWED}")
    return _http_url(text)


def _meant(text: str, scheme: str, separator: str) -> str:
    if separator:
        close = {"ws": "http", "wss": "https"}.get(scheme.lower())
        hint = meant(f"{close}{text[len(scheme) :]}", target_url) if close else ""
        return f"{hint}; WebSockets pass through it" if hint else ""
    looks_like_host = re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?(/\S*)?", text)
    return meant(f"http://{text}", target_url) if looks_like_host else ""


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or not parts.hostname or parts.netloc.endswith(":") or port == 0:
        raise ValueError(f"{quote(text)} has no host, or a port that is not 1 to 65535: write {URL_ALLOWED}")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{quote(text)} has a path that is not plain: write it percent-encoded, without . and ..")
    host = host_name(f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname)
    shown = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{shown}{path}"


def _expand_port(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65535:
            raise ValueError(f"{value} is not a port: 1 to 65535 is allowed")
        return f"http://127.0.0.1:{value}"
    return value


def _is_either_loopback(url: object) -> bool:
    """Whether a target as written leaves open which loopback address it means."""
    if isinstance(url, int):
        return True
    return (
        isinstance(url, str) and re.match(r"https?://localhost\.?(?:[:/]|\Z)", url.strip(), re.IGNORECASE) is not None
    )


def _known_balance(value: object) -> object:
    if isinstance(value, str) and value in LATER_BALANCES:
        raise ValueError(f"{quote(value)} is not built in this version; allowed: round_robin")
    return value


class TargetOptions(Options):
    """One server of an upstream. A URL alone, or a port of this machine, stands for a target of weight 1."""

    url: Annotated[
        str,
        AfterValidator(target_url),
        BeforeValidator(_expand_port, json_schema_input_type=str | int),
        Written("target"),
    ] = Field(description="`http://…`, `https://…` or `unix:/path`; a base path is put before the request's path.")
    weight: Annotated[Count, Field(ge=1, le=1000)] = Field(
        default=1, description="Share of the requests beside the other targets' weights, 1 to 1000."
    )

    both_loopbacks: Flag = Field(
        default=False,
        description="Try 127.0.0.1 and [::1], and remember which answers; true for a port and for localhost.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, data: object) -> object:
        if isinstance(data, cls):
            return data
        given = data if isinstance(data, dict) else {"url": data}
        if _is_either_loopback(given.get("url")):
            given = {"both_loopbacks": True, **given}
        return given

    @model_serializer(mode="wrap")
    def _without_the_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if not self.both_loopbacks and not _is_either_loopback(self.url):
            data.pop("both_loopbacks", None)  # says nothing to those who read the rest
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        full = handler(core)
        short: dict[str, Any] = {"type": ["string", "integer"], "description": "A URL, or a port of this machine."}
        return {"anyOf": [short, full]}


def _distinct(targets: tuple[TargetOptions, ...]) -> tuple[TargetOptions, ...]:
    seen: set[str] = set()
    for target in targets:
        if target.url in seen:
            raise ValueError(
                f"{quote(target.url)} is a target twice: give it once, with a `weight` if it shall have more"
            )
        seen.add(target.url)
    return targets


Targets = Annotated[tuple[TargetOptions, ...], OneOrMore, AfterValidator(_distinct)]
"""Different targets; a single one may be written without a list."""


class UpstreamTimeouts(Options):
    """How long a target may take."""

    connect: PositiveDuration = Field(default=3.0, description="To accept a connection, TLS included; longer is 504.")
    response: PositiveDuration = Field(
        default=30.0, description="From the end of the request to the response head; longer is 504."
    )
    read_idle: PositiveDuration = Field(
        default=60.0, description="Without a byte of an unfinished response body; then the exchange is cut."
    )
    tunnel_idle: PositiveDuration = Field(
        default=3600.0,
        description="Without a byte of a WebSocket, another upgrade, or an answer of type `text/event-stream`; then "
        "it is cut.",
    )


class PoolOptions(Options):
    """Connections to one target, held by one worker."""

    max_connections: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        default=100,
        description="Most connections; `DEVHOST_MAX_CONNS` sets it for every upstream. At most half carry requests "
        "whose bodies are still coming. Event streams and tunnels do not count once they run: "
        "`server.limits.connections` bounds those.",
    )
    max_idle: Annotated[Count, Field(ge=0, le=100_000)] = Field(
        default=32, description="Most idle connections that are kept for reuse; 0 keeps none."
    )
    idle_expiry: PositiveDuration = Field(
        default=30.0, description="Idle longer than this, a connection is closed; keep it below the target's own limit."
    )
    wait: Duration = Field(
        default=2.0, description="How long a request may wait for a connection when all are in use; longer is 503."
    )
    reuse_after_body: Flag = Field(
        default=True,
        description="Use a connection again after a POST, PUT or PATCH with a body; false is for servers that may not "
        "read all of it. After a body with any other method it never is.",
    )


class RetryOptions(Options):
    """When a failed try is repeated; only ever one that may be repeated safely."""

    attempts: Annotated[Count, Field(ge=1, le=10)] = Field(
        default=2,
        description="Tries of one request in all, the first included; 1 never retries. Replacing a kept connection "
        "that turns out to be closed is no retry.",
    )
    budget_percent: Annotated[Count, Field(ge=0, le=100)] = Field(
        default=20,
        description="Most retries as a share of the upstream's recent requests, so that retries stay few; 0 retries "
        "only what was never sent, which costs no budget.",
    )


class UpstreamDefaults(Options):
    """What upstreams inherit, key by key."""

    balance: Annotated[Literal["round_robin"], BeforeValidator(_known_balance)] = Field(
        default="round_robin", description="How requests are shared: round_robin, smooth and by weight."
    )
    timeouts: UpstreamTimeouts = Field(default=UpstreamTimeouts(), description="How long a target may take.")
    pool: PoolOptions = Field(default=PoolOptions(), description="Connections to one target, held by one worker.")
    retries: RetryOptions = Field(default=RetryOptions(), description="When a failed try is repeated.")
    buffer_body: Annotated[Size, Field(ge=1, le=BUFFER_MAX)] | None = Field(
        default=None,
        description="Send a length instead of chunks for bodies up to this size, 64MiB at most: for servers that know "
        "no chunks. Such a body is kept in memory until it is complete, and only then is a connection taken for it; "
        "a larger one goes in chunks. null sends chunks at once.",
    )
    pass_host: Flag = Field(
        default=True, description="Send the client's `Host`; false sends the target's own (for virtual hosts)."
    )


class UpstreamOptions(UpstreamDefaults):
    """A named group of targets that answer alike."""

    targets: Annotated[Targets, Field(min_length=1)] = Field(
        description="URLs, ports of this machine, or `{url: …, weight: …}`; at least one."
    )

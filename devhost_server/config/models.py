"""What the YAML may say (`Document`) and what it comes to (`Settings`).

The options of a part live with the part; here is what belongs to no part alone, and the two roots. `Document` takes
what people write: shorthand, hosts left out, upstreams without a name. `Settings` is resolved: each part can be handed
its piece, and nothing has to be looked up or defaulted any more.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from devhost_server.admin.options import AdminOptions
from devhost_server.messages.options import ClientTimeouts, FixedAnswer, Limits
from devhost_server.messages.trust import MADE_HERE, OWN_FAMILY, fold, is_statement
from devhost_server.observe.options import LogOptions
from devhost_server.options import (
    TOKEN,
    BindAddress,
    Entries,
    Flag,
    HeaderFields,
    HostName,
    HostPattern,
    KeyedError,
    OneLine,
    OneOrMore,
    Options,
    meant,
)
from devhost_server.secrecy import masked
from devhost_server.units import Duration, Written, quote
from devhost_server.upstream.options import Targets, UpstreamDefaults, UpstreamOptions, UpstreamTimeouts

# What globs, templates and regular expressions have and paths hardly ever: Express, nginx, Traefik and Kubernetes take
# one or the other. What OData and custom methods use ($metadata, (1), x:verb) is left alone.
_PATTERN: Final = re.compile(r"[*{}\[\]|^\\<>]|\.\+|(?<=/):|\$\Z")
# What makes a route answer: each has exactly one.
_WAYS: Final = ("to", "upstream", "respond")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")

_ACCOUNT_PART: Final = r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,10})"
_ACCOUNT: Final = re.compile(f"{_ACCOUNT_PART}(?::{_ACCOUNT_PART})?")


def entry_name(text: str) -> str:
    """Check the name of a route or an upstream: it may become a host label and always becomes a metric label."""
    if not _NAME.fullmatch(text):
        close = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63].rstrip("-_")
        hint = f" (did you mean '{close}'?)" if close else ""
        raise ValueError(f"{quote(text)} is not a name: lower-case letters, digits, - and _ are allowed{hint}")
    return text


def network(text: str) -> str:
    """Return a CIDR block in canonical text; a bare address is a block of one. Raises `ValueError`."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        hint = f" (did you mean '{ipaddress.ip_network(text, strict=False)}'?)"
    except ValueError:
        hint = ""
    raise ValueError(f"{quote(text)} is not a network: write a CIDR such as 10.0.0.0/8, or an address{hint}")


def route_path(text: str) -> str:
    """Return a path prefix in the form that requests are compared in: percent-escapes decoded, no trailing slash."""
    try:
        path = unquote_to_bytes(text).decode()
    except UnicodeError:
        raise ValueError(f"{quote(text)} is not a path: its percent-escapes are not UTF-8") from None
    if (pattern := _PATTERN.search(text)) is not None:
        raise ValueError(_not_a_pattern(text, text[: pattern.start()]))
    if not path.startswith("/"):
        raise ValueError(f"{quote(text)} is not a path: it begins with /{meant('/' + text, route_path)}")
    if "//" in path:
        raise ValueError(f"{quote(text)} is not a path: empty segments are merged before paths are compared")
    if ";" in path:
        raise ValueError(f"{quote(text)} is not a path: what follows ; are parameters, which routes do not compare")
    if "?" in text or "#" in text or not path.isprintable() or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{quote(text)} is not a path: no query, fragment, control character, . or .. is allowed")
    return path.rstrip("/") or "/"


def _not_a_pattern(text: str, before: str) -> str:
    is_glob = text == f"{before}*" and not before.endswith((".", ")"))
    prefix = before.rstrip("/") if is_glob else before.rpartition("/")[0]
    whole = text.rstrip("*") == "/"
    hint = meant(prefix or "/", route_path) if prefix or whole else ""
    return (
        f"{quote(text)} is a pattern, and a path is a prefix that ends at the end of a segment: /api is for /api and "
        f"all below it, as /api/x, and not for /apix; write %XX for a character that is meant itself{hint}"
    )


def method(text: str) -> str:
    """Return a request method in upper case. Raises `ValueError`."""
    if not TOKEN.fullmatch(text):
        raise ValueError(f"{quote(text)} is not a request method: write one such as GET")
    return text.upper()


def protocol(text: str) -> str:
    """Return the name of a protocol that may be upgraded to, in lower case. Raises `ValueError`."""
    name = text.partition("/")[0].lower()
    if "/" in text and TOKEN.fullmatch(name):
        raise ValueError(f"{quote(text)} has a version; its name alone stands for all of them: write {quote(name)}")
    if not TOKEN.fullmatch(text):
        raise ValueError(f"{quote(text)} is not the name of a protocol: write one such as websocket")
    if name in {"h2c", "h2"}:
        raise ValueError(
            f"{quote(text)} cannot be upgraded to: in the tunnel, requests would pass routes, rules and log by"
        )
    return name


def trusted_header(text: str) -> str:
    """Check the name of a field that trusted proxies may send on. Raises `ValueError` with a sentence."""
    name = text.lower().encode()
    if name == b"x-forwarded-for":
        raise ValueError(f"{quote(text)} is believed from every trusted proxy: remove it")
    if name in MADE_HERE or name == b"x-request-id" or name.startswith(OWN_FAMILY):
        raise ValueError(f"{quote(text)} is written by the gateway itself, whoever sends it: remove it")
    if not TOKEN.fullmatch(text) or not is_statement(name) or fold(name) != name:
        raise ValueError(
            f"{quote(text)} is not a field that only proxies may send: X-Forwarded-* and fields of its kind such as "
            "Remote-User, X-Auth-Request-Email or True-Client-IP are allowed; all others pass from everybody"
        )
    return text


def default_details(env: str) -> bool | tuple[str, ...]:
    """Return who may see details where nothing is said."""
    return ("127.0.0.0/8", "::1/128") if env == "prod" else True


def default_paths(env: str) -> Literal["pass", "strict"]:
    """Return how paths are judged where nothing is said: strictly where others than their developer are served."""
    return "strict" if env in ("staging", "prod") else "pass"


def _workers(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 512):
        return value
    raise ValueError(f"{quote(value)} is not a number of workers: 1 to 512, or auto, is allowed")


def _written_in_one(value: object) -> object:
    """Split a text at its commas: one environment variable can hold several, or none."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def details_for(value: object) -> object:
    """Return who may see details: true, false, or CIDRs. Raises `ValueError` with a sentence."""
    if value is None or isinstance(value, bool):
        return value
    written = _written_in_one(value)
    if not isinstance(written, list | tuple) or not all(isinstance(each, str) for each in written):
        raise ValueError(f"{quote(value)} is not allowed; allowed: true, false, or a list of CIDRs")
    return _distinct(tuple(map(network, written)))


def _account(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and _ACCOUNT.fullmatch(text):
        return text
    raise ValueError(f"{quote(value)} is not a user: NAME or NAME:GROUP is allowed, each a name or a number")


Account = Annotated[str, BeforeValidator(_account, json_schema_input_type=str | int)]
Name = Annotated[str, AfterValidator(entry_name), Written("name")]
Network = Annotated[str, AfterValidator(network), Written("CIDR")]
RoutePath = Annotated[str, AfterValidator(route_path), Written("path")]
Method = Annotated[str, AfterValidator(method), Written("method")]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_workers, json_schema_input_type=int | Literal["auto"])]
Networks = Annotated[tuple[Network, ...], OneOrMore, BeforeValidator(_written_in_one), AfterValidator(_distinct)]
TrustedHeaders = Annotated[
    tuple[Annotated[str, AfterValidator(trusted_header), Written("header")], ...], OneOrMore, AfterValidator(_distinct)
]
Hosts = Annotated[tuple[HostPattern, ...], OneOrMore, AfterValidator(_distinct)]
Slash = Literal["redirect"] | None
Details = Annotated[
    bool | tuple[str, ...],
    BeforeValidator(details_for, json_schema_input_type=bool | str | list[str]),
    Written("true, false or CIDRs"),
]
"""Who may see what is behind the gateway: everybody, nobody, or clients at these addresses."""
Methods = Annotated[tuple[Method, ...], OneOrMore, AfterValidator(_distinct)]
Protocols = Annotated[tuple[Annotated[str, AfterValidator(protocol)], ...], OneOrMore, AfterValidator(_distinct)]


class DrainOptions(Options):
    """How the gateway stops."""

    delay: Duration = Field(
        default=0.0,
        description="After the signal, how long to go on accepting while `/readyz` already fails; give load balancers "
        "that poll it time to notice.",
    )
    timeout: Duration = Field(
        default=30.0, description="After `delay`, how long exchanges in flight may take to finish before they are cut."
    )


class ServerOptions(Options):
    """Where the gateway listens and what it takes from clients."""

    bind: Annotated[tuple[BindAddress, ...], OneOrMore, AfterValidator(_distinct), Field(min_length=1)] = Field(
        default=("127.0.0.1:7777",),
        description="Public addresses, one or more: `host:port`, `[::1]:port` or `unix:/path`. Port 0 is any free one.",
    )
    workers: Workers = Field(
        default="auto",
        description="Worker processes, or `auto`: the cores that this process may use (affinity, cgroup).",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="CIDRs whose `X-Forwarded-*` and `X-Request-ID` are believed, as a list or a text with commas; "
        "what others say is replaced.",
    )
    trusted_headers: TrustedHeaders = Field(
        default=("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix"),
        description="What those may say beside `X-Forwarded-For`. All else of that kind is dropped, from everybody.",
    )
    paths: Literal["pass", "strict"] = Field(
        default="pass",
        description="`strict` refuses paths that some servers read differently (`..;`, backslash and NUL, escaped or "
        "not, and what would belong to another route then); `pass` passes them on. What is not said is "
        "`strict` in the environments staging and prod.",
    )
    limits: Limits = Field(default=Limits(), description="What a client may send and hold.")
    timeouts: ClientTimeouts = Field(default=ClientTimeouts(), description="How long a client may take.")
    drain: DrainOptions = Field(default=DrainOptions(), description="How the gateway stops.")
    user: Account | None = Field(
        default=None,
        description="`NAME[:GROUP]`: whom all processes but the master become when the gateway was started "
        "as root; null: they stay root.",
    )


class EchoOptions(Options):
    """The built-in echo upstream, for trying things out."""

    bind: BindAddress = Field(default="127.0.0.1:7779", description="Where it listens; point a route's `to` there.")


class RouteOptions(Options):
    """One route, resolved: whom it answers, and with what."""

    name: str = Field(description="The key under `routes`.")
    hosts: tuple[HostPattern, ...] = Field(description="Hosts in canonical form.")
    # Not RoutePath: percent-escapes are decoded once, when the files are read, and not once more from the snapshot.
    path: str = Field(default="/", description="Path prefix, percent-escapes decoded, no trailing slash.")
    methods: Methods = Field(default=(), description="Methods; none is no condition.")
    headers: HeaderFields = Field(default={}, description="Header conditions.")
    upstream: str | None = Field(default=None, description="Name of the upstream.")
    respond: FixedAnswer | None = Field(default=None, description="The answer instead of an upstream's.")
    timeouts: UpstreamTimeouts | None = Field(
        default=None, description="What counts instead of the upstream's, whole; none where they are the upstream's."
    )
    strip_prefix: Flag = Field(default=False, description="Whether `path` is cut off before the request is passed on.")
    upgrades: Protocols = Field(default=("websocket",), description="Protocols that may be asked for.")
    trailers: Flag = Field(default=False, description="Whether request trailers are passed on.")
    slash: Slash = Field(default=None, description="What `path` itself is answered with.")
    details: Details = Field(default=True, description="Who may see targets and causes.")
    owner: OneLine | None = Field(default=None, description="Who to ask.")


class Settings(Options):
    """The resolved configuration. `model_dump(mode="json")` validates back to an equal one."""

    env: str
    server: ServerOptions
    log: LogOptions
    admin: AdminOptions
    domain: str
    echo: EchoOptions | None = None
    upstreams: dict[str, UpstreamOptions]
    routes: dict[str, RouteOptions]
    secrets: tuple[tuple[str | int, ...], ...] = Field(
        default=(), description="Paths in these settings of what came out of files that are no configuration."
    )

    def published(self) -> dict[str, Any]:
        """Return the settings as JSON values for the other processes: without the tokens, which no worker needs."""
        values = self.model_dump(mode="json")
        values["admin"] = masked(values["admin"], path=("admin",))
        return values

    def shown(self) -> dict[str, Any]:
        """Return the settings as JSON values without their secrets: whatever a person is shown is made from this."""
        values: dict[str, Any] = masked(self.model_dump(mode="json", exclude={"secrets"}), self.secrets)
        return values


# --- what files may say beyond that ----------------------------------------------------------------------------------


class ServerSection(ServerOptions):
    """Where the gateway listens and what it takes from clients."""

    watch: Literal[False] = Field(
        default=False, description="Reload when a file changes. Not built in this version: only false is allowed."
    )
    state_dir: None = Field(
        default=None, description="Where dynamic routes live. Not built in this version: only null is allowed."
    )


_OVERRIDE: Final = "What an earlier of several `-c` files says about this name is meant to be changed."


class UpstreamSection(UpstreamOptions):
    """A named group of targets that answer alike."""

    override: Flag = Field(default=False, description=_OVERRIDE)


class RouteSection(UpstreamDefaults):
    """One route. A port of this machine or a URL alone stands for `{to: …}`.

    With `to` it is an upstream too, and takes what an upstream takes; with `upstream`, only `timeouts`.
    """

    host: Hosts | None = Field(
        default=None,
        description="Host or list of hosts: a name, `*.name` (one label more), `**.name` (any depth), `*` (any). "
        "Without it, the route's name in front of `domain`.",
    )
    path: RoutePath = Field(default="/", description="Path prefix; it ends on a segment boundary.")
    methods: Methods = Field(default=(), description="Methods, one or a list; without it, any.")
    headers: HeaderFields = Field(
        default={}, description="Header fields that the request must have, with their values."
    )
    to: Targets = Field(default=(), description="URL, port of this machine, target or list of them, with no name.")
    upstream: Name | None = Field(default=None, description="Name of one of the `upstreams`, instead of `to`.")
    respond: FixedAnswer | None = Field(
        default=None, description="An answer of the gateway's own, instead of an upstream's."
    )
    strip_prefix: Flag = Field(
        default=False,
        description="Cut `path` off before the request is passed on, and tell it in `X-Forwarded-Prefix`.",
    )
    slash: Slash = Field(
        default=None,
        description="`redirect` answers `path` itself with 308 to `path/`; null passes it on like any other.",
    )
    details: Details | None = Field(
        default=None,
        description="Who may see targets and causes on error pages: true (everybody), false (nobody), or CIDRs of "
        "clients. Default: everybody; in the environment `prod` loopback.",
    )
    upgrades: Protocols = Field(
        default=("websocket",),
        description="Protocols that an `Upgrade` may ask for, by name; `[]` is none. What is not listed is dropped and "
        "the request served without it. An upgrade never goes together with a body.",
    )
    trailers: Flag = Field(
        default=False,
        description="Pass on what comes behind the body of a chunked request. Only for servers that read trailers: "
        "others take them for the next request.",
    )
    owner: OneLine | None = Field(default=None, description="Who to ask; shown wherever the route is.")
    override: Flag = Field(default=False, description=_OVERRIDE)
    policies: tuple[()] = Field(
        default=(), description="Policies, in order. Not built in this version: only an empty list is allowed."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_target(cls, data: object) -> object:
        return data if isinstance(data, dict | cls) else {"to": data}

    @model_validator(mode="after")
    def _slash_has_a_path(self) -> Self:
        if self.slash and self.path == "/":
            raise KeyedError(
                "slash", "`slash` is about a `path` that has no / at its end, and this one is /: remove it"
            )
        return self

    @model_validator(mode="after")
    def _answers_in_one_way(self) -> Self:
        given = [name for name in _WAYS if getattr(self, name)]
        if not given:
            raise ValueError("a route needs something that answers: give it `to`, `upstream` or `respond`")
        if len(given) > 1:
            raise ValueError(f"a route has one answer, and this one has {' and '.join(given)}; set all but one to null")
        return self

    @model_validator(mode="after")
    def _options_of_an_upstream_have_one(self) -> Self:
        for key in self.model_fields_set & UpstreamDefaults.model_fields.keys():
            if self.respond is not None:
                raise KeyedError(key, f"`{key}` is about an upstream, and this route answers by itself: remove it")
            if not self.to and key != "timeouts":
                whose = f"upstreams.{self.upstream}"
                raise KeyedError(key, f"`{key}` belongs to the upstream, which others use too: write it under {whose}")
        return self

    @property
    def upstream_options(self) -> dict[str, Any]:
        """What the route says about its upstream, as it is written there."""
        return self.model_dump(include=set(UpstreamDefaults.model_fields), exclude_unset=True)

    @classmethod
    def allowed(cls, given: Collection[str]) -> list[str]:
        """Return the keys that a route may have beside those it has."""
        way = next((key for key in _WAYS if key in given), None)
        others = () if way is None else tuple(key for key in _WAYS if key != way)
        if way == "upstream":
            others += tuple(key for key in UpstreamDefaults.model_fields if key != "timeouts")
        elif way == "respond":
            others += tuple(UpstreamDefaults.model_fields)
        own = [key for key in cls.model_fields if key not in UpstreamDefaults.model_fields]
        return [key for key in (*own, *UpstreamDefaults.model_fields) if key not in others]

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        full = handler(core)
        short: dict[str, Any] = {"type": ["string", "integer"], "description": "A URL, or a port of this machine."}
        return {"anyOf": [short, full]}


class Document(Options):
    """Everything that configuration files may say."""

    server: ServerSection = Field(
        default=ServerSection(), description="Where the gateway listens and what it takes from clients."
    )
    log: LogOptions = Field(default=LogOptions(), description="Where logs go and what they look like.")
    admin: AdminOptions = Field(default=AdminOptions(), description="Health, metrics and the API.")
    domain: HostName = Field(
        default="localhost", description="A route that gives no `host` answers on its name in front of this."
    )
    echo: EchoOptions | None = Field(
        default=None, description="The built-in echo upstream, served by the gateway itself; null for none."
    )
    defaults: UpstreamDefaults = Field(default=UpstreamDefaults(), description="What upstreams inherit, key by key.")
    upstreams: Annotated[dict[Name, UpstreamSection], Entries] = Field(
        default={}, description="Named groups of targets; `null` removes one of a lower layer."
    )
    routes: Annotated[dict[Name, RouteSection], Entries] = Field(
        default={}, description="Who answers what; `null` removes one of a lower layer."
    )

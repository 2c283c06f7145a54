"""What every options model shares: the base class and the field types that are not numbers.

An option is one field: its type, default, check and description stand together on the model of the part that it
steers. The configuration reference, the JSON Schema and the error sentences are all made from those fields.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict, model_validator
from pydantic.fields import FieldInfo

from devhost_server.units import Written, quote

# RFC 9110 §5.6.2: what a method or a field name is made of.
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: visible octets with spaces and tabs between them. CR, LF and NUL can never be part of a field value.
_FIELD_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
# Underscores are not for host names, but team members' branch names make them and every browser sends them.
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORTS: Final = re.compile(r"(?::[0-9]+)+\Z")
# Linux: sizeof(sockaddr_un.sun_path) less the closing NUL.
_LONGEST_SOCKET_PATH: Final = 107

BIND_ALLOWED: Final = "host:port such as 127.0.0.1:7777, [::1]:port or unix:/path"


class KeyedError(ValueError):
    """What a whole model is wrong about, put down to one of its keys."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def accepts_none(field: FieldInfo) -> bool:
    """Return whether ``null`` is a value of this field, rather than a request for its default."""
    return type(None) in get_args(field.annotation)


class Options(BaseModel):
    """Frozen settings of one part; unknown keys are errors, and ``null`` means the default where it is no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {k: v for k, v in data.items() if v is not None or k not in fields or accepts_none(fields[k])}


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _without_null(value: object) -> object:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


OneOrMore = BeforeValidator(_one_or_more)
"""A list that may be written as its only item."""

Entries = BeforeValidator(_without_null)
"""A mapping of names that people choose: ``null`` removes an entry."""

Flag = Annotated[bool, Strict()]
"""``true`` or ``false`` and nothing that merely looks like it."""

Count = Annotated[int, Strict()]
"""A whole number; no text, no fraction."""


def meant(text: str, check: Callable[[str], object]) -> str:
    """Return `` (did you mean '…'?)`` if that text can be written so and passes the check, else nothing."""
    try:
        check(text)
    except ValueError:
        return ""
    return f" (did you mean '{text}'?)" if text.isprintable() and "'" not in text and len(text) <= 80 else ""


@dataclass(frozen=True, slots=True)
class Bind:
    """One listening address: `host` and `port`, or the `path` of a unix socket. IPv6 hosts carry no brackets."""

    host: str = ""
    port: int = 0
    path: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: a unix socket or a loopback address."""
        if self.path is not None or self.host == "localhost":
            return True
        address = _ip(self.host)
        return address is not None and address.is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether it listens on every address of the machine."""
        address = _ip(self.host)
        return address is not None and address.is_unspecified

    @property
    def described(self) -> str:
        """Where to click: for an address that cannot be gone to itself, one that it covers, and what it is."""
        if self.path is not None:
            return f"unix:{self.path}"
        if not self.is_wildcard:
            return f"http://{self}"
        # [::] takes IPv4 too, as it does with Go and Caddy; see `listeners`.
        both = ":" in self.host
        what = "every address, IPv4 and IPv6" if both else "every IPv4 address"
        return f"http://{'localhost' if both else '127.0.0.1'}:{self.port} ({self}: {what})"

    def collides(self, other: "Bind") -> bool:
        """Return whether both cannot be bound at once. Port 0 never collides: the system chooses a free one."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        same = self.host == other.host or self.is_wildcard or other.is_wildcard
        return same and self.port == other.port != 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(text: str) -> Bind:
    """Read ``host:port``, ``[v6]:port`` or ``unix:/path``; raises `ValueError` with a sentence."""
    if text.startswith("unix:"):
        return Bind(path=socket_path(text))
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _is_port(port) or not (name := _bind_host(host)):
        raise ValueError(f"{quote(text)} is not an address to listen on: write {BIND_ALLOWED}")
    return Bind(host=name, port=int(port))


def _bind_host(text: str) -> str | None:
    if text.startswith("[") and text.endswith("]"):
        address = _ip(text[1:-1])
        return str(address) if address is not None and address.version == 6 else None
    if _ip(text) is not None:
        return text if ":" not in text else None
    try:
        return host_name(text)
    except ValueError:
        return None


def socket_path(text: str) -> str:
    """Return the absolute path in ``unix:/path`` (or ``unix:///path``); raises `ValueError` with a sentence."""
    path = text.removeprefix("unix:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.startswith("//") or path.endswith("/") or not path.isprintable():
        raise ValueError(f"{quote(text)} is not a socket: write unix: and an absolute path, as in unix:/run/app.sock")
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"{quote(text)} is too long for a unix socket: {_LONGEST_SOCKET_PATH} bytes are allowed")
    return path


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def host_name(text: str, written: str | None = None) -> str:
    """Return a host in the form that is compared: lower case, punycode, no trailing dot, IP addresses compressed.

    IPv6 addresses are written and given back in brackets. Raises `ValueError` with a sentence about `written`, of which
    `text` may be a part.
    """
    said = quote(text if written is None else written)
    name = text.lower().removesuffix(".")
    if name.startswith("["):
        address = _ip(name.strip("[]"))
        if address is None or address.version != 6 or not name.endswith("]"):
            raise ValueError(f"{said} is not an IPv6 address in brackets")
        return f"[{address}]"
    if not name.isascii():
        name = _punycode(name, said)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{said} is not a host name: labels of letters, digits and hyphens, joined by dots")
    if name.split(".")[-1].isdigit() and _ip(name) is None:
        raise ValueError(f"{said} is not an IPv4 address: four numbers from 0 to 255 are allowed")
    return name


def _punycode(name: str, said: str) -> str:
    import idna  # noqa: PLC0415 - its tables take longer to load than a whole configuration without such names

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{said} is not an international host name: {error}") from None


def host_pattern(text: str) -> str:
    """Return a route's host: a name, ``*.suffix`` (one label more), ``**.suffix`` (one or more) or ``*`` (any).

    Raises `ValueError` with a sentence.
    """
    if text == "*":
        return text
    if (hint := _only_a_host(text)) is not None:
        raise ValueError(f"{quote(text)} is not a host alone: scheme and path are no part of it{hint}")
    stars, _, suffix = text.partition(".") if text.startswith("*") else ("", "", text)
    if stars not in ("", "*", "**") or not suffix or "*" in suffix or "/" in text:
        raise ValueError(
            f"{quote(text)} is not a host: write a name, *.name (one label more), **.name (any depth) or * (any host)"
        )
    if not suffix.startswith("[") and _PORTS.search(suffix):
        bare = _PORTS.sub("", text)
        hint = meant(bare, host_pattern)
        raise ValueError(f"{quote(text)} has a port, which routes do not compare{hint}")
    return f"{stars}.{host_name(suffix, text)}" if stars else host_name(suffix)


def _only_a_host(text: str) -> str | None:
    """Return a hint for a text that is a URL, or a host and a path; None if it is neither."""
    if "/" not in text:
        return None
    bare = _PORTS.sub("", re.sub(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", "", text).partition("/")[0])
    return meant(bare, host_pattern) if bare else ""


def field_value(text: str) -> str:
    """Check that a text can be sent as a header value without becoming anything else; raises `ValueError`."""
    if not _FIELD_VALUE.fullmatch(text):
        raise ValueError(
            f"{quote(text)} is not a header value: latin-1 text without line breaks, other control characters "
            "or spaces around it is allowed"
        )
    return text


def one_line(text: str) -> str:
    """Check that a text is one line without control characters; raises `ValueError`."""
    if not text.isprintable() or not text:
        raise ValueError(f"{quote(text)} is not a line of text: it is empty or has line breaks or control characters")
    return text


def header_fields(value: Mapping[str, str]) -> dict[str, str]:
    """Check names and values of header fields and give the names in lower case; raises `ValueError`."""
    fields: dict[str, str] = {}
    for name, text in value.items():
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{quote(name)} is not a header name: letters, digits and hyphens are allowed")
        if name.lower() in fields:
            raise ValueError(f"{quote(name)} is given twice: header names are compared without case")
        fields[name.lower()] = field_value(text)
    return fields


def _refuse_lone_port(value: object) -> object:
    if isinstance(value, int):
        hint = "" if isinstance(value, bool) else meant(f"127.0.0.1:{value}", parse_bind)
        raise ValueError(f"{quote(value)} is not an address: write {BIND_ALLOWED}{hint}")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


BindAddress = Annotated[
    str, BeforeValidator(_refuse_lone_port), AfterValidator(lambda text: str(parse_bind(text))), Written("address")
]
"""A listening address in its canonical text; `parse_bind` takes it apart."""

HostName = Annotated[str, AfterValidator(host_name), Written("host name")]
"""A host name, lower case, in punycode, without a trailing dot."""

HostPattern = Annotated[str, AfterValidator(host_pattern), Written("host")]
"""What a route's host may be."""

FieldValue = Annotated[str, AfterValidator(field_value)]
"""A header value."""

OneLine = Annotated[str, AfterValidator(one_line)]
"""A text that may stand in a table, a page or a log line."""

HeaderFields = Annotated[dict[str, str], Entries, AfterValidator(header_fields)]
"""Header names (lower case) and values that nothing can be injected through."""

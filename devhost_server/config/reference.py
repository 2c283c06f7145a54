"""The configuration reference, made from the options models: ``python -m devhost_server.config.reference``.

What is said about a key stands in the code beside its type, default and check; here is only the frame around it.
"""

import sys
from collections.abc import Iterator
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from devhost_server.admin.options import AdminOptions
from devhost_server.config.layers import PACKAGED
from devhost_server.config.models import (
    Document,
    DrainOptions,
    EchoOptions,
    RouteSection,
    ServerSection,
    UpstreamSection,
)
from devhost_server.config.schema import alternatives, default_of, model_of, written
from devhost_server.config.show import scalar
from devhost_server.config.unbuilt import UNBUILT
from devhost_server.messages.options import ClientTimeouts, FixedAnswer, Limits
from devhost_server.observe.options import LogOptions
from devhost_server.options import Options, accepts_none
from devhost_server.units import Written
from devhost_server.upstream.options import (
    PoolOptions,
    RetryOptions,
    TargetOptions,
    UpstreamDefaults,
    UpstreamTimeouts,
)

_SECTIONS: Final[tuple[tuple[str, type[Options], str], ...]] = (
    ("server", ServerSection, "Where the gateway listens and what it takes from clients."),
    ("server.limits", Limits, "What a client may send and hold."),
    ("server.timeouts", ClientTimeouts, "How long a client may take."),
    ("server.drain", DrainOptions, "How the gateway stops: `TERM`, `INT`, `devhost-server drain`."),
    ("log", LogOptions, "Logs go to stderr; the access log is one JSON object a line."),
    ("admin", AdminOptions, "Health, metrics and the API have an address of their own."),
    (
        "echo",
        EchoOptions,
        "An upstream to try things with, served by the gateway itself. Off unless given; `{}` is on.",
    ),
    ("defaults", UpstreamDefaults, "What every upstream inherits, key by key, unless it says otherwise itself."),
    ("defaults.timeouts", UpstreamTimeouts, "How long a target may take."),
    ("defaults.pool", PoolOptions, "Connections to one target, held by one worker."),
    ("defaults.retries", RetryOptions, "When a failed try is repeated; only ever one that may be repeated safely."),
    ("upstreams.NAME", UpstreamSection, "A named group of targets that answer alike."),
    ("upstreams.NAME.targets.N", TargetOptions, "A URL alone, or a port of this machine, is a target of weight 1."),
    ("routes.NAME", RouteSection, "Who answers what. A port or a URL alone stands for `{to: …}`."),
    ("routes.NAME.respond", FixedAnswer, "An answer of the gateway's own."),
)

_HEAD: Final = """\
# Configuration

<!-- Made by `python -m devhost_server.config.reference > docs/configuration.md`; a test checks that it is current. -->

`devhost-server check` tells everything that is wrong, each with file, line and column. `devhost-server config show
--origin` tells what is in effect and where it comes from. `devhost-server config schema` prints a JSON Schema for
editors; with the YAML language server, one line at the top of a file is enough:

```yaml
# yaml-language-server: $schema=./devhost.schema.json
```

## Where it is looked for

The folder is `--config-dir`, else `$DEVHOST_CONFIG_DIR`, else `./config`, else `/etc/devhost-server`; the latter two
count only if a `devhost*.yaml` is in them. If there is none, a packaged configuration serves: an echo upstream, and a
route to it.

The environment is `--env`, else `$DEVHOST_ENV`, else `dev`; any name will do except `local`.

| layer, later wins | |
|---|---|
| defaults | those on this page; they contain no routes |
| `devhost.yaml` | what all environments have in common |
| `devhost.ENV.yaml` | required unless the environment is `dev` |
| `devhost.local.yaml` | yours alone, not committed |
| `DEVHOST__SECTION__KEY=value` | double underscore is nesting, names become lower case |
| `--set section.key=value` | repeatable |

`-c FILE` (repeatable) replaces the three files. Two of them that define one route or upstream are an error that names
both places, unless the later entry says `override: true`.

Mappings merge key by key; lists and scalars replace what is below; `null` removes: an entry of `routes`, `upstreams` or
`headers` is gone, and a key falls back to its default (unless `null` is one of its values).

The value of a variable and of `--set` is taken as it is where the key is text (a token, an owner, a header value):
`DEVHOST__ADMIN__TOKEN='#s3cret'`, and `null` and `"x"` in quotes are text too. Everywhere else it is YAML, and one of
which YAML would drop a part (`4 # comment`) is an error.

`DEVHOST_MAX_CONNS=N` is shorthand for `pool.max_connections` of every upstream. It ranks as a variable: files are
overridden by it, `DEVHOST__…` variables for the same key and `--set` override it.

```console
$ DEVHOST__SERVER__WORKERS=4 devhost-server --set routes.web=3000 --set 'server.bind=["0.0.0.0:7777"]'
```

## Files

YAML, with less room for surprises: only `true`, `false`, `null` and decimal numbers are typed, so `no`, `on`, `1:30`
and `012` are text. A key given twice, a tag and a second document are errors. Anchors, aliases and `<<` work, within
bounds (32 levels, 100,000 values).

## Expansion

It happens on scalar values, after the layers were merged, so no value can add structure, and what a higher layer
replaces need not be set. What comes out is not expanded again.

| written | means |
|---|---|
| `${VAR}` | the variable; an error if it is not set |
| `${VAR:-text}` | `text` if it is not set or empty |
| `${VAR-text}` | `text` if it is not set |
| `${VAR:?text}` | an error that says `text` if it is not set or empty |
| `${file:/run/secrets/x}` | what is in the file, less a newline at its end; relative to the configuration file |
| `$$` | `$` |

`text` may hold expressions: `${file:${TOKEN_FILE:-/run/secrets/token}}`. Inside `[…]` and `{…}`, put them in quotes.

A scalar with an expression in it is typed by its result, quoted or not: `"${PORT}"` and `"${BASE}00"` are numbers where
a number is wanted. Where text is wanted it stays as it is, so a token may well be `0123`, or `null`. An empty result is
empty text; for something that can be left out, write `${VAR:-null}`, alone in its scalar: a `null` that stands in
the file itself means that there is none.

What came out of a file, and what is called a token, password, secret, cookie, authorization or API key, is masked in
all that the commands and the admin API show. A target's address is more than that: it also names its metrics and stands
in logs and error pages, so it is no place for a secret.

## Notation

| | |
|---|---|
| duration | `250ms`, `30s`, `5m`, `2h`, `1d`, `1h30m`; a plain number is seconds |
| size | `64KiB`, `2MiB` (1024s), `10MB` (1000s); a plain number is bytes |
| address | `127.0.0.1:7777`, `[::1]:7777`, `localhost:7777`, `unix:/run/x.sock` |
| target | `http://host:port`, `https://host:port`, `unix:/run/app.sock`, a port alone |
| name | of a route or an upstream: lower-case letters, digits, `-` and `_` |

"A or list" means that one A may be written without the brackets.

"""

_INHERITED: Final[dict[type[Options], str]] = {
    UpstreamSection: "\nAnd all that `defaults` has.\n",
    RouteSection: """
With `to`, a route is an upstream too and takes all that `defaults` has. With `upstream: NAME`, `timeouts` alone: what
stands there counts for this route instead of the upstream's, key by key.
""",
}

_ROUTING: Final = """\
### Which route wins

The most specific: an exact host before the longest wildcard before `*`; then the longest path; then the most further
conditions (`methods` is one, each header is one). Two that would tie are an error. Hosts are compared without case,
port and one trailing dot, in punycode; paths with percent-escapes decoded, prefixes at segment boundaries (`/v1` is
for `/v1` and `/v1/x`, not for `/v10`).

```yaml
routes:
  web: 3000                                    # web.<domain> to http://127.0.0.1:3000
  old: http://10.0.0.7:8080/legacy             # old.<domain>, with a base path
  both: {to: [3000, {url: "http://127.0.0.1:3001", weight: 3}], timeouts: {response: 2m}, pass_host: false}
  v1: {host: api.localhost, path: /v1, upstream: api, strip_prefix: true}
  reports: {host: api.localhost, path: /v1/reports, upstream: api, timeouts: {response: 10m}}
  blue: {host: api.localhost, path: /v1, headers: {x-team: blue}, to: 8001}
  previews: {host: "*.preview.localhost", to: 3002}
  ping: {host: "*", path: /ping, respond: {body: pong}}
```
"""

_TAIL: Final = """\
## The three environments

`config/` has one file for what all have in common and one for each of three environments, which a team copies and
edits. `dev` listens on loopback alone and brings something to talk to; it is also what is packaged for a machine
without any configuration:

```yaml
{packaged}```

`staging` is shared by a team: it listens on all interfaces, believes nobody about the client unless told to
(`DEVHOST_TRUSTED_PROXIES`), and gives load balancers and colleagues time when it drains. It starts with nothing set;
its admin listener is then on loopback, and putting it on the network (`DEVHOST_ADMIN_BIND`) needs a token
(`DEVHOST_ADMIN_TOKEN`). `prod` leaves no decision to a default, says at each what to weigh, and names the variables
that it needs at its top.

## Not built in this version

These keys have a meaning in the design and none yet in the program. They are refused, not ignored.

| key | |
|---|---|
{unbuilt}
| `balance` | other than `round_robin` |
"""


def reference() -> str:
    """Return the whole page."""
    packaged = (PACKAGED / "devhost.dev.yaml").read_text(encoding="utf-8")
    unbuilt = "\n".join(f"| `{'.'.join(each.path)}` | {each.what.rpartition(' ')[0]} |" for each in UNBUILT)
    return "".join((_HEAD, *_sections(), _TAIL.format(packaged=packaged, unbuilt=unbuilt)))


def _sections() -> Iterator[str]:
    yield "## Keys\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
    yield f"{_row('domain', Document.model_fields['domain'])}\n"
    for title, model, text in _SECTIONS:
        yield f"\n### `{title}`\n\n{text}\n\n{_table(model)}"
        yield _INHERITED.get(model, "")
    yield f"\n{_ROUTING}\n"


def _table(model: type[Options]) -> str:
    inherited = UpstreamDefaults.model_fields.keys() if model in _INHERITED else set()
    rows = [
        _row(name, field) for name, field in model.model_fields.items() if name not in inherited | _elsewhere(model)
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _elsewhere(model: type[Options]) -> set[str]:
    """Return the keys that have a table of their own, or stand among those that are not built."""
    place = {ServerSection: ("server",), RouteSection: ("routes", "*")}.get(model)
    sections = {name for name, field in model.model_fields.items() if model_of(field.annotation)}
    optional = {name for name in sections if accepts_none(model.model_fields[name])}
    return sections - optional | {each.path[-1] for each in UNBUILT if each.path[:-1] == place}


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_shown(default_of(field))}`"
    return f"| `{name}` | {_type(field)} | {default} | {field.description} |"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(scalar, value))}]"
    return "{}" if isinstance(value, dict) else scalar(value)


_NAMES: Final = {int: "number", str: "text", bool: "`true` or `false`", NoneType: "`null`"}


def _type(field: FieldInfo) -> str:
    notation = written(field)
    names = (
        [notation.name] if notation else [_kind(each) for each in alternatives(field.annotation) if each != NoneType]
    )
    return " or ".join([*names, *(["`null`"] if accepts_none(field) else [])]) + _bounds(field)


def _kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{scalar(value)}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"{_item(get_args(kind)[0])} or list"
    return "mapping of text" if get_origin(kind) is dict else _NAMES.get(kind, "mapping")


def _item(kind: Any) -> str:
    notation = next((mark for mark in get_args(kind)[1:] if isinstance(mark, Written)), None)
    return notation.name if notation else "target"


def _bounds(field: FieldInfo) -> str:
    limits = {name: getattr(mark, name) for mark in field.metadata for name in ("ge", "le") if hasattr(mark, name)}
    if isinstance(default_of(field), list) or not limits:
        return ""
    notation = written(field)
    shown = {name: notation.render(value) if notation else f"{value}" for name, value in limits.items()}
    return f", {shown['ge']} to {shown['le']}" if "le" in shown else f", at least {shown['ge']}"


if __name__ == "__main__":
    sys.stdout.write(reference())

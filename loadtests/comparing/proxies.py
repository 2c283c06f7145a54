"""Every proxy that is compared: how it is found, and its configuration for one piece of work.

Each is given what an expert would give it: kept-alive upstream connections without bound, request and response bodies
streamed (the gateway streams too), long idle times. None verifies, compresses or caches anything.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
UPSTREAM_POOL = 512
"""Connections to the upstream that the gateway may hold at once, and that HAProxy, Caddy and Traefik may keep idle."""
NGINX_KEEPALIVE = 8192
"""nginx opens as many upstream connections as it has clients: it keeps all, or 5,000 clients would cost reconnects."""
MOST_CLIENTS = 16_384
_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")
SHEDDING_POOL = 64
"""Upstream connections where load is to be shed: enough to be busy, few enough that a queue is short."""
REFUSE_AFTER = "50ms"
"""How long a request may wait for an upstream connection where load is to be shed."""


@dataclass(frozen=True)
class Variant:
    """What differs between the configurations of one proxy."""

    workers: int = 1
    routes: int = 1
    targets: int = 1
    clients: int = 1024
    """Connections to be ready for: nginx sets memory aside for each."""
    sheds: bool = False
    """Refuse early what cannot be served soon, where the proxy knows how."""
    slow: bool = False
    """The upstream is the gateway's own echo, which can be asked to take its time."""

    @property
    def label(self) -> str:
        """What is special about it, for people; empty for the plain one."""
        special = {
            f"{self.workers} workers": self.workers > 1,
            f"{self.routes:,} routes": self.routes > 1,
            f"{self.targets} targets": self.targets > 1,
            "sheds load": self.sheds,
            "a slow upstream": self.slow,
        }
        return ", ".join(text for text, given in special.items() if given)


@dataclass(frozen=True)
class Setting:
    """What a configuration is written for."""

    port: int
    upstream_port: int
    directory: Path
    variant: Variant = Variant()

    @property
    def hosts(self) -> list[str]:
        """The hosts of the routes where there are several; with one route, it answers on any."""
        return [f"r{number}.bench.test" for number in range(self.variant.routes)]

    @property
    def targets(self) -> list[str]:
        """Addresses of the upstream: one server, which listens on many loopback addresses."""
        return [f"{address}:{self.upstream_port}" for address in target_addresses(self.variant.targets)]


def target_addresses(count: int) -> list[str]:
    """Loopback addresses, 127.0.0.1 first."""
    return ["127.0.0.1", *(f"127.0.1.{number}" for number in range(1, count))]


class UnavailableError(Exception):
    """A proxy that cannot take part, and why."""


@dataclass(frozen=True)
class Proxy:
    """A proxy that can be compared."""

    name: str
    label: str
    program: str
    """Name of the executable; the environment variable of that name in capitals names another."""
    files: Callable[[Setting], Mapping[str, str]]
    arguments: Callable[[Setting], list[str]]
    environment: Callable[[Setting], Mapping[str, str]] = lambda _: {}
    check: Callable[[Setting], list[str]] | None = None
    """Arguments that make the program judge its configuration and end."""
    version_arguments: tuple[str, ...] = ("--version",)
    knows: frozenset[str] = frozenset()
    """Variants it has a configuration for: `routes`, `targets`, `workers`, `sheds`, `slow`."""
    needs_module: str | None = None

    def executable(self) -> str:
        """Find the program: the environment variable, then the PATH, then beside this Python (wheels install there)."""
        if self.needs_module and importlib.util.find_spec(self.needs_module) is None:
            raise UnavailableError(f"{self.name}: the Python package {self.needs_module} is not installed")
        named = os.environ.get(self.program.upper())
        search = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/sbin"])
        found = shutil.which(named or self.program, path=search)
        if found is None:
            raise UnavailableError(
                f"{self.name}: {named or self.program} is not installed (or name it: {self.program.upper()}=…)"
            )
        return found

    def supports(self, variant: Variant) -> bool:
        """Whether it has a configuration for that variant."""
        wanted = {
            "workers": variant.workers > 1,
            "routes": variant.routes > 1,
            "targets": variant.targets > 1,
            "sheds": variant.sheds,
            "slow": variant.slow,
        }
        return all(name in self.knows for name, needed in wanted.items() if needed)

    def write(self, setting: Setting) -> None:
        """Write the configuration files."""
        for name, text in self.files(setting).items():
            (setting.directory / name).write_text(text)

    def command(self, setting: Setting) -> list[str]:
        """The command line that serves in the foreground."""
        return [self.executable(), *self.arguments(setting)]

    def version(self) -> str:
        """What the program says its version is."""
        done = subprocess.run(
            [self.executable(), *self.version_arguments], capture_output=True, text=True, check=False, timeout=20
        )
        found = _VERSION.search(done.stdout + done.stderr)
        return found[0] if found else "?"


# -- nginx ------------------------------------------------------------------------------------------------------------

_NGINX = """
worker_processes {workers}; daemon off; pid {directory}/pid; error_log {directory}/error.log crit;
events {{ worker_connections {connections}; }}
http {{
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  map $http_upgrade $upstream_connection {{ default upgrade; '' ''; }}
  upstream u {{ {servers} keepalive {keepalive}; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;
  proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upstream_connection;
  {features}
  {hosts}
}}
"""
_NGINX_LOG = """log_format j escape=json '{"ts":"$time_iso8601","request_id":"$request_id","client":"$remote_addr",'
    '"method":"$request_method","host":"$host","target":"$request_uri","protocol":"$server_protocol",'
    '"status":$status,"bytes_in":$request_length,"bytes_out":$bytes_sent,"duration":$request_time,'
    '"target_addr":"$upstream_addr","connect":"$upstream_connect_time","upstream":"$upstream_header_time",'
    '"user_agent":"$http_user_agent","referer":"$http_referer"}';
  access_log DIRECTORY/access.log j;
  proxy_set_header X-Request-ID $request_id; proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port $server_port;
  add_header X-Request-ID $request_id; add_header Via "1.1 nginx";"""

# The buffers of nginx are a page or two; bodies cost it several times less in larger ones, which few people set.
_NGINX_BUFFERS = (
    "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; client_body_buffer_size 128k;"
)


def _nginx(setting: Setting, features: str, reuse: str = "") -> dict[str, str]:
    return {"nginx.conf": _nginx_text(setting, features, reuse)}


def _nginx_text(setting: Setting, features: str, reuse: str = "") -> str:
    return _NGINX.format(
        workers=setting.variant.workers,
        directory=setting.directory,
        connections=2 * setting.variant.clients + 64,
        servers=" ".join(f"server {target};" for target in setting.targets),
        keepalive=NGINX_KEEPALIVE,
        features=features.replace("DIRECTORY", str(setting.directory)),
        hosts="\n  ".join(_nginx_servers(setting, reuse)),
    )


def _nginx_servers(setting: Setting, reuse: str) -> list[str]:
    listen = f"listen 127.0.0.1:{setting.port} backlog=8192{reuse}"
    if setting.variant.routes == 1:
        return [f"server {{ {listen}; location / {{ proxy_pass http://u; }} }}"]
    servers = [f"server {{ {listen} default_server; return 404; }}"]
    short = f"listen 127.0.0.1:{setting.port}"
    servers += [f"server {{ {short}; server_name {h}; location / {{ proxy_pass http://u; }} }}" for h in setting.hosts]
    return servers


def _nginx_arguments(setting: Setting) -> list[str]:
    return ["-e", "stderr", "-p", str(setting.directory), "-c", str(setting.directory / "nginx.conf")]


_NGINX_KNOWS = frozenset({"workers", "routes", "targets"})

# -- HAProxy ----------------------------------------------------------------------------------------------------------

_HAPROXY = """global
  nbthread {workers}
  maxconn {connections}
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  timeout tunnel 1h
  timeout queue {queue}
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 8192
  option forwardfor
  {rule}
backend b
  {servers}
"""


def _haproxy(setting: Setting) -> dict[str, str]:
    several = setting.variant.routes > 1
    most = f" maxconn {SHEDDING_POOL}" if setting.variant.sheds else ""
    text = _HAPROXY.format(
        workers=setting.variant.workers,
        connections=MOST_CLIENTS,
        queue=REFUSE_AFTER if setting.variant.sheds else "60s",
        port=setting.port,
        rule=f"use_backend %[req.hdr(host),lower,map({setting.directory}/hosts.map)]"
        if several
        else "default_backend b",
        servers="\n  ".join(
            f"server s{number} {target} pool-max-conn -1{most}" for number, target in enumerate(setting.targets)
        ),
    )
    hosts = {"hosts.map": "".join(f"{host} b\n" for host in setting.hosts)} if several else {}
    return {"haproxy.cfg": text, **hosts}


def _haproxy_arguments(setting: Setting) -> list[str]:
    return ["-db", "-f", str(setting.directory / "haproxy.cfg")]


# -- Caddy and Traefik ------------------------------------------------------------------------------------------------

_CADDY = """{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy {targets} {{
    transport http {{
      keepalive_idle_conns_per_host {pool}
    }}
  }}
}}
"""


def _caddy(setting: Setting) -> dict[str, str]:
    return {"Caddyfile": _CADDY.format(port=setting.port, targets=" ".join(setting.targets), pool=UPSTREAM_POOL)}


def _caddyfile(setting: Setting) -> list[str]:
    return ["--config", str(setting.directory / "Caddyfile"), "--adapter", "caddyfile"]


def _traefik(setting: Setting) -> dict[str, str]:
    static = {
        "entryPoints": {"web": {"address": f"127.0.0.1:{setting.port}"}},
        "providers": {"file": {"filename": str(setting.directory / "dynamic.yaml")}},
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "serversTransport": {"maxIdleConnsPerHost": UPSTREAM_POOL},
        "log": {"level": "ERROR"},
    }
    servers = [{"url": f"http://{target}"} for target in setting.targets]
    dynamic = {
        "http": {
            "routers": {"r": {"rule": "PathPrefix(`/`)", "entryPoints": ["web"], "service": "s"}},
            "services": {"s": {"loadBalancer": {"servers": servers}}},
        }
    }
    # JSON is YAML, and the file provider takes no other name.
    return {"traefik.yaml": json.dumps(static), "dynamic.yaml": json.dumps(dynamic)}


def _go(setting: Setting) -> dict[str, str]:
    return {"GOMAXPROCS": str(setting.variant.workers), "HOME": str(setting.directory)}


# -- Envoy ------------------------------------------------------------------------------------------------------------

_ENVOY_TYPE = "type.googleapis.com/envoy.extensions."


def _envoy(setting: Setting) -> dict[str, str]:
    router = {"name": "envoy.filters.http.router", "typed_config": _typed("filters.http.router.v3.Router")}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "u", "timeout": "0s"}}
    hosts = [{"name": "v", "domains": ["*"], "routes": [route]}]
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="p",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        route_config={"virtual_hosts": hosts},
        http_filters=[router],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"address": _address("127.0.0.1", setting.port), "filter_chains": [{"filters": filters}]}
    endpoints = [
        {"endpoint": {"address": _address(host, int(port))}}
        for host, _, port in (target.partition(":") for target in setting.targets)
    ]
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), MOST_CLIENTS)
    cluster = {
        "name": "u",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": "u", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    return {"envoy.json": json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})}


def _typed(kind: str, **values: object) -> dict[str, object]:
    return {"@type": _ENVOY_TYPE + kind, **values}


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def _envoy_arguments(setting: Setting) -> list[str]:
    quiet = ["--log-level", "error", "--disable-hot-restart"]
    return ["-c", str(setting.directory / "envoy.json"), "--concurrency", str(setting.variant.workers), *quiet]


# -- the gateway ------------------------------------------------------------------------------------------------------


def _gateway(setting: Setting) -> dict[str, str]:
    most = SHEDDING_POOL if setting.variant.sheds else UPSTREAM_POOL
    wait = REFUSE_AFTER if setting.variant.sheds else "60s"
    pool = {"max_connections": most, "max_idle": most, "idle_expiry": "600s", "wait": wait}
    routes: dict[str, object] = {"all": {"host": "*", "upstream": "up"}}
    if setting.variant.routes > 1:
        routes = {f"r{number}": {"host": host, "upstream": "up"} for number, host in enumerate(setting.hosts)}
    targets = [f"http://{target}" for target in setting.targets]
    if setting.variant.slow:
        targets = [f"unix:{setting.directory / 'echo.sock'}"]
    configuration = {
        "server": {
            "bind": [f"127.0.0.1:{setting.port}"],
            "workers": setting.variant.workers,
            "limits": {"connections": MOST_CLIENTS},
            "timeouts": {"keepalive": "600s"},
        },
        "log": {"level": "warning", "access": str(setting.directory / "access.log")},
        "admin": {"bind": f"unix:{setting.directory / 'admin.sock'}"},
        "echo": {"bind": targets[0]} if setting.variant.slow else None,
        "upstreams": {"up": {"targets": targets, "pool": pool}},
        "routes": routes,
    }
    return {"gateway.yaml": yaml.safe_dump(configuration, sort_keys=False)}


def _gateway_arguments(setting: Setting) -> list[str]:
    # The module, not the console script: what is measured is the code of the Python that runs this comparison.
    return ["-m", "devhost_server", "--env", "dev", "-c", str(setting.directory / "gateway.yaml")]


# -- the obvious Python alternatives ----------------------------------------------------------------------------------


def _uvicorn_arguments(application: str) -> Callable[[Setting], list[str]]:
    def arguments(setting: Setting) -> list[str]:
        server = ["-m", "uvicorn", "--app-dir", str(HERE), f"alternatives:{application}"]
        quiet = ["--no-access-log", "--log-level", "critical", "--no-server-header", "--no-date-header"]
        return [*server, *quiet, "--host", "127.0.0.1", "--port", str(setting.port), "--timeout-keep-alive", "600"]

    return arguments


def _acceptors(setting: Setting, kind: str) -> list[str]:
    return [str(HERE / "acceptors.py"), str(setting.port), kind]


def _alternative_environment(setting: Setting) -> dict[str, str]:
    return {"UPSTREAM": f"http://{setting.targets[0]}"}


def _nothing(_: Setting) -> dict[str, str]:
    return {}


GATEWAY = "devhost"

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        Proxy(
            name=GATEWAY,
            label="this gateway with all of its data plane: JSON access log, metrics, request ids, forwarding headers",
            program=sys.executable,
            files=_gateway,
            arguments=lambda setting: [*_gateway_arguments(setting), "run"],
            check=lambda setting: [*_gateway_arguments(setting), "check"],
            environment=lambda _: {"PYTHONPATH": str(CHECKOUT)},
            version_arguments=("-m", "devhost_server", "--version"),
            knows=frozenset({"workers", "routes", "targets", "sheds", "slow"}),
        ),
        Proxy(
            name="nginx",
            label="nginx as a bare proxy: no log",
            program="nginx",
            files=lambda setting: _nginx(setting, "access_log off;"),
            arguments=_nginx_arguments,
            check=lambda setting: ["-t", "-q", *_nginx_arguments(setting)],
            version_arguments=("-v",),
            knows=_NGINX_KNOWS,
        ),
        Proxy(
            name="nginx+log",
            label="nginx doing the same work: JSON access log, request id, forwarding headers",
            program="nginx",
            files=lambda setting: _nginx(setting, _NGINX_LOG),
            arguments=_nginx_arguments,
            check=lambda setting: ["-t", "-q", *_nginx_arguments(setting)],
            version_arguments=("-v",),
            knows=_NGINX_KNOWS,
        ),
        Proxy(
            name="nginx+64k",
            label="nginx as a bare proxy with larger buffers: no log",
            program="nginx",
            files=lambda setting: _nginx(setting, f"access_log off; {_NGINX_BUFFERS}"),
            arguments=_nginx_arguments,
            check=lambda setting: ["-t", "-q", *_nginx_arguments(setting)],
            version_arguments=("-v",),
            knows=_NGINX_KNOWS,
        ),
        Proxy(
            name="haproxy",
            label="HAProxy, no log",
            program="haproxy",
            files=_haproxy,
            arguments=_haproxy_arguments,
            check=lambda setting: ["-c", "-q", *_haproxy_arguments(setting)],
            version_arguments=("-v",),
            knows=frozenset({"workers", "routes", "targets", "sheds"}),
        ),
        Proxy(
            name="envoy",
            label="Envoy, no log",
            program="envoy",
            files=_envoy,
            arguments=_envoy_arguments,
            check=lambda setting: [*_envoy_arguments(setting), "--mode", "validate"],
            knows=frozenset({"workers", "targets"}),
        ),
        Proxy(
            name="traefik",
            label="Traefik, no log",
            program="traefik",
            files=_traefik,
            arguments=lambda setting: [f"--configFile={setting.directory / 'traefik.yaml'}"],
            environment=_go,
            version_arguments=("version",),
            knows=frozenset({"workers", "targets"}),
        ),
        Proxy(
            name="caddy",
            label="Caddy, no log",
            program="caddy",
            files=_caddy,
            arguments=lambda setting: ["run", *_caddyfile(setting)],
            check=lambda setting: ["validate", *_caddyfile(setting)],
            environment=_go,
            version_arguments=("version",),
            knows=frozenset({"workers", "targets"}),
        ),
        Proxy(
            name="nginx+reuseport",
            label="nginx as a bare proxy with a listening socket for each worker",
            program="nginx",
            files=lambda setting: _nginx(setting, "access_log off;", " reuseport"),
            arguments=_nginx_arguments,
            check=lambda setting: ["-t", "-q", *_nginx_arguments(setting)],
            version_arguments=("-v",),
            knows=_NGINX_KNOWS,
        ),
        Proxy(
            name="uvloop",
            label="no proxy: two workers on uvloop that accept from one shared socket and answer",
            program=sys.executable,
            files=_nothing,
            arguments=lambda setting: _acceptors(setting, "shared"),
            version_arguments=("-c", "import uvloop; print(uvloop.__version__)"),
            knows=frozenset({"workers"}),
        ),
        Proxy(
            name="uvloop+reuseport",
            label="no proxy: two workers on uvloop that accept from a socket each and answer",
            program=sys.executable,
            files=_nothing,
            arguments=lambda setting: _acceptors(setting, "reuseport"),
            version_arguments=("-c", "import uvloop; print(uvloop.__version__)"),
            knows=frozenset({"workers"}),
        ),
        Proxy(
            name="aiohttp",
            label="an ASGI app under uvicorn (uvloop, httptools) with an aiohttp client, no log",
            program=sys.executable,
            files=_nothing,
            arguments=_uvicorn_arguments("with_aiohttp"),
            environment=_alternative_environment,
            version_arguments=(
                "-c",
                "import aiohttp, uvicorn; print(f'{aiohttp.__version__}-uvicorn-{uvicorn.__version__}')",
            ),
            needs_module="aiohttp",
        ),
        Proxy(
            name="httpx",
            label="an ASGI app under uvicorn (uvloop, httptools) with a stock httpx.AsyncClient, no log",
            program=sys.executable,
            files=_nothing,
            arguments=_uvicorn_arguments("with_httpx"),
            environment=_alternative_environment,
            version_arguments=(
                "-c",
                "import httpx, uvicorn; print(f'{httpx.__version__}-uvicorn-{uvicorn.__version__}')",
            ),
            needs_module="httpx",
        ),
    )
}


def checkout(name: str, directory: Path) -> Proxy:
    """The gateway of another working tree, to measure a change beside what it changes."""
    return replace(
        PROXIES[GATEWAY],
        name=name,
        label=f"the gateway of {directory.name}",
        environment=lambda _: {"PYTHONPATH": str(directory.resolve())},
    )

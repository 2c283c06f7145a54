"""nginx, HAProxy and Caddy with the smallest fair configuration, to ask them what we ask ourselves.

Each is run in the foreground as a child with a temporary directory, proxying every request to one upstream, with the
timeouts of `tests.support.gateway.defaults` as near as its options come.
"""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.net import accepts, free_port
from tests.support.waiting import wait_until

NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  client_header_timeout 1s; client_body_timeout 1s; send_timeout 1s; keepalive_timeout 5s;
  client_max_body_size 0; large_client_header_buffers 4 32k; proxy_buffer_size 64k; proxy_buffers 8 64k;
  map $http_upgrade $upstream_connection {{ default upgrade; '' ''; }}
  upstream u {{ server {upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://u; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
      proxy_connect_timeout 500ms; proxy_read_timeout 1s; proxy_send_timeout 1s;
      proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $upstream_connection;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port $server_port;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  tune.bufsize 65536
  tune.http.maxhdr 256
defaults
  mode http
  timeout connect 500ms
  timeout client 1s
  timeout server 1s
  timeout http-request 1s
  timeout http-keep-alive 5s
  timeout tunnel 3s
  timeout client-fin 1s
  retries 1
  option redispatch
  option abortonclose
  option http-no-delay
  option forwardfor
frontend f
  bind 127.0.0.1:{port}
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port {port}
  default_backend b
backend b
  http-reuse safe
  server s {upstream}
"""

CADDY = """
{{
  admin off
  auto_https off
  servers {{
    timeouts {{
      read_header 1s
      idle 5s
    }}
    max_header_size 64KB
  }}
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy {upstream} {{
    transport http {{
      dial_timeout 500ms
      response_header_timeout 1s
      read_timeout 1s
      write_timeout 1s
      keepalive 30s
    }}
  }}
}}
"""


@dataclass(frozen=True)
class _Kind:
    template: str
    file: str
    command: Callable[[Path], list[str]]


_KINDS = {
    "nginx": _Kind(
        NGINX, "nginx.conf", lambda path: ["nginx", "-e", "stderr", "-p", str(path.parent), "-c", str(path)]
    ),
    "haproxy": _Kind(HAPROXY, "haproxy.cfg", lambda path: ["haproxy", "-db", "-f", str(path)]),
    "caddy": _Kind(CADDY, "Caddyfile", lambda path: ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]),
}
NAMES = tuple(_KINDS)


class PeerProxy:
    """One of the peers, running."""

    def __init__(self, name: str, upstream: str) -> None:
        self.name = name
        self.port = free_port()
        self._stack = contextlib.ExitStack()
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-")))
        self._start(_KINDS[name], upstream)

    def _start(self, kind: _Kind, upstream: str) -> None:
        path = self._directory / kind.file
        path.write_text(kind.template.format(port=self.port, upstream=upstream, directory=self._directory))
        log = self._stack.enter_context((self._directory / "output").open("wb"))
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self._directory),
        }
        self._process = subprocess.Popen(
            kind.command(path), stdout=log, stderr=log, env=environment, cwd=self._directory
        )
        try:
            wait_until(lambda: accepts(self.port), 5, f"{self.name} accepting")
        except AssertionError as error:
            error.add_note((self._directory / "output").read_text(errors="replace"))
            self.close()
            raise

    def close(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stack.close()

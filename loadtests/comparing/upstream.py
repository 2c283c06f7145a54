"""What the proxies talk to where it is not a WebSocket: one nginx, on the cores of the load."""

from __future__ import annotations

import os
from pathlib import Path

from .proxies import target_addresses

MOST_TARGETS = 100
SMALL = '{"hello":"world","x":"0123456789012345678901234567890123456789"}'
"""The small answer: 66 bytes of JSON."""
SIZES = {"1k": 1_000, "16k": 16_000, "100k": 100_000, "10m": 10_000_000}
_CONFIGURATION = """
worker_processes 1; daemon off; pid {directory}/pid; error_log {directory}/error.log crit;
events {{ worker_connections 32768; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_max_body_size 0; sendfile on;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  open_file_cache max=16;
  server {{
    {listen}
    location / {{ default_type application/json; return 200 '{small}'; }}
    location /static/ {{ alias {directory}/www/; }}
    location /chunked/ {{ alias {directory}/www/; ssi on; ssi_types *; }}
    location /upload {{
      client_body_buffer_size 16m; proxy_pass http://127.0.0.1:{port}/received;
      proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_method GET;
      proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


def write(directory: Path, port: int) -> Path:
    """Write the configuration and the files to serve; give the configuration's path.

    A body is read to its end before it is answered (`/upload`), so that an early answer saves nobody the work.
    `/chunked/` has no length because server-side includes are looked for in it.
    """
    (directory / "www").mkdir(exist_ok=True)
    for name, size in SIZES.items():
        # Letters and digits only: server-side includes must find nothing in them.
        (directory / "www" / name).write_bytes(os.urandom(size // 2 + 1).hex().encode()[:size])
    listen = "\n    ".join(f"listen {address}:{port} backlog=8192;" for address in target_addresses(MOST_TARGETS))
    path = directory / "upstream.conf"
    path.write_text(_CONFIGURATION.format(directory=directory, port=port, listen=listen, small=SMALL))
    return path

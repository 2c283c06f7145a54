"""The recipes: every block of YAML loads, and servers that are installed are run behind the gateway as it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.config.support import loaded
from tests.support import Gateway, RawClient, ScriptedUpstream, free_port, request, wait_until
from tests.support.net import accepts
from tests.support.websocket import handshake, read_frame

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(yaml.safe_load(block)["routes"])))
def test_every_block_is_a_configuration(tmp_path: Path, block: str) -> None:
    assert loaded(tmp_path, block).settings.routes


def block(name: str) -> dict[str, object]:
    """The route of that name on the page."""
    return next(found for text in BLOCKS for key, found in yaml.safe_load(text)["routes"].items() if key == name)


def test_an_application_is_found_by_host_without_a_resolver() -> None:
    with Gateway({"routes": {"web": {"respond": {"body": "found"}}}}) as gateway:
        url = f"http://web.localhost:{gateway.port}/"
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        for how in (
            ("--resolve", f"web.localhost:{gateway.port}:127.0.0.1", url),
            ("-H", "Host: web.localhost", f"http://127.0.0.1:{gateway.port}/"),
        ):
            done = subprocess.run(("curl", "-s", "--noproxy", "*", *how), capture_output=True, text=True, check=True)
            assert done.stdout == "found"


def test_git_clones_through_the_gateway(tmp_path: Path) -> None:
    backend = shutil.which("git") and Path(
        subprocess.run(("git", "--exec-path"), capture_output=True, text=True, check=True).stdout.strip()
    )
    if not backend or not (backend / "git-http-backend").exists():
        pytest.skip("git's http-backend is not installed")
    source = tmp_path / "repositories" / "source"
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    subprocess.run(("git", "init", "-q", str(source)), check=True)
    (source / "large").write_bytes(bytes(range(256)) * 4096)
    subprocess.run(("git", "-C", str(source), "add", "."), check=True)
    subprocess.run(("git", *identity, "-C", str(source), "commit", "-q", "-m", "x"), check=True)
    port = free_port()
    server = subprocess.Popen(
        (sys.executable, "-c", CGI, str(backend / "git-http-backend"), str(source.parent), str(port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: accepts(port), 20, "the CGI server listening")
        with Gateway({"routes": {"git": {"host": "*", "to": f"http://127.0.0.1:{port}"}}}) as gateway:
            target = tmp_path / "clone"
            url = f"http://127.0.0.1:{gateway.port}/source/.git"
            subprocess.run(("git", "clone", "-q", url, str(target)), check=True, capture_output=True, timeout=60)
            assert (target / "large").read_bytes() == (source / "large").read_bytes()
    finally:
        server.terminate()
        server.wait()


CGI = """
import http.server, os, subprocess, sys
backend, root, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        environment = dict(os.environ, GIT_PROJECT_ROOT=root, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
            QUERY_STRING=query, REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("content-type", ""),
            CONTENT_LENGTH=str(len(body)), HTTP_CONTENT_ENCODING=self.headers.get("content-encoding", ""),
            GIT_PROTOCOL=self.headers.get("git-protocol", ""))
        done = subprocess.run([backend], input=body, capture_output=True, env=environment)
        head, _, rest = done.stdout.partition(b"\\r\\n\\r\\n")
        lines = head.split(b"\\r\\n")
        status = next((line[8:] for line in lines if line.lower().startswith(b"status: ")), b"200 OK")
        lines = [line for line in lines if not line.lower().startswith(b"status: ")]
        self.wfile.write(b"HTTP/1.0 " + status + b"\\r\\n" + b"\\r\\n".join(lines) + b"\\r\\n\\r\\n" + rest)
    do_POST = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_vite_reloads_the_page_through_the_gateway(tmp_path: Path) -> None:
    folder = os.environ.get("RECIPES_VITE")  # where `npm install vite` was run
    vite = Path(folder) / "node_modules" / ".bin" / "vite" if folder else None
    if vite is None or not vite.exists():
        pytest.skip("set RECIPES_VITE to a folder in which `npm install vite` was run")
    page = tmp_path / "index.html"
    page.write_text("<p>before</p>")
    port = free_port()
    command = (str(vite), str(tmp_path), "--host", "127.0.0.1", "--port", str(port), "--strictPort")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(port), 60, "Vite listening")
        with Gateway({"routes": {"web": {"to": port, "timeouts": {"response": "2m"}}}}) as gateway:
            host = f"web.localhost:{gateway.port}"
            with RawClient(gateway.port, timeout=60) as client:
                client.send(request("GET", "/@vite/client", host=host))
                script = client.read_response().body.decode()
                client.send(request("GET", "/", host=host))
                assert b"before" in client.read_response().body
            token = re.search(r'wsToken = "([^"]+)"', script)
            with RawClient(gateway.port, timeout=60) as client:
                fields = (("Sec-WebSocket-Protocol", "vite-hmr"), ("Origin", f"http://{host}"))
                client.send(handshake(f"/?token={token[1] if token else ''}", fields, host=host))
                assert client.read_response().status == 101
                assert b"connected" in read_frame(client).payload
                page.write_text("<p>after</p>")
                assert b"full-reload" in read_frame(client, 30).payload
            with RawClient(gateway.port, timeout=60) as client:
                client.send(request("GET", "/", host="stranger.example"))
                assert client.read_response().status == 404, "no route"
    finally:
        server.terminate()
        server.wait()


def test_s3_and_webdav_see_the_name_that_the_client_uses() -> None:
    upstream = ScriptedUpstream()
    try:
        routes = {"s3": {"host": block("s3")["host"], "to": upstream.url}, "dav": {"to": upstream.url}}
        with Gateway({"routes": routes}) as gateway:
            host = f"bucket.s3.localhost:{gateway.port}"
            destination = ("Destination", f"http://dav.localhost:{gateway.port}/b")
            for method, name, fields in (
                ("GET", host, (("Authorization", "AWS4-HMAC-SHA256 SignedHeaders=host;x-amz-date"),)),
                ("MOVE", f"dav.localhost:{gateway.port}", (destination,)),
            ):
                with RawClient(gateway.port) as client:
                    client.send(request(method, "/a%2Fb?x=%20", fields, host=name))
                    assert client.read_response(method).status == 200
                seen = upstream.requests[-1]
                assert seen.target == "/a%2Fb?x=%20", "what was signed is what arrives"
                assert seen.headers.get("host") == name
                assert all(seen.headers.get(key.lower()) == value for key, value in fields)
    finally:
        upstream.close()

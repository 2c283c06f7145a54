"""The page itself: every block of YAML loads, what it says about names is so, and Vite and Next reload their pages."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.config.support import loaded
from tests.recipes.support import BLOCKS, Visitor, hear, recipe, running
from tests.support import Gateway, free_port


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(yaml.safe_load(block)["routes"])))
def test_every_block_is_a_configuration(tmp_path: Path, block: str) -> None:
    assert loaded(tmp_path, block).settings.routes


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


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_vite_reloads_the_page_through_the_gateway(tmp_path: Path, address: str) -> None:
    vite = _vite()
    page = tmp_path / "index.html"
    page.write_text("<p>before</p>")
    port = free_port()
    # Vite listens on what localhost is here, which may be [::1] alone.
    server = running(port, vite, tmp_path, "--host", address, "--port", str(port), "--strictPort")
    with server, recipe(port, "front") as gateway:
        visitor = Visitor(gateway, "front.localhost")
        token = re.search(r'wsToken = "([^"]+)"', visitor.get("/@vite/client").text)
        assert token
        assert "before" in visitor.get("/").text
        with visitor.websocket(f"/?token={token[1]}", {"Sec-WebSocket-Protocol": "vite-hmr"}) as socket:
            hear(socket, b"connected")
            page.write_text("<p>after</p>")
            hear(socket, b"full-reload")
        assert "after" in visitor.get("/").text


@pytest.mark.parametrize("allowed", [(), (".staging.example",)])
def test_vite_wants_to_know_hosts_beyond_localhost(tmp_path: Path, allowed: tuple[str, ...]) -> None:
    vite = _vite()
    (tmp_path / "index.html").write_text("<p>here</p>")
    (tmp_path / "vite.config.mjs").write_text(f"export default {{server: {{allowedHosts: {list(allowed)}}}}}")
    port = free_port()
    server = running(port, vite, tmp_path, "--host", "127.0.0.1", "--port", str(port), "--strictPort")
    with server, recipe(port, "front", domain="staging.example") as gateway:
        assert Visitor(gateway, "front.staging.example").get("/").status == (200 if allowed else 403)


def _vite() -> Path:
    folder = os.environ.get("RECIPES_VITE")
    if not folder:
        pytest.skip("set RECIPES_VITE to a folder in which `npm install vite` was run")
    return Path(folder) / "node_modules" / ".bin" / "vite"


@pytest.mark.parametrize("allowed", [(), ("*.staging.example",)])
def test_next_reloads_the_page_through_the_gateway(allowed: tuple[str, ...]) -> None:
    folder = os.environ.get("RECIPES_NEXT")
    if not folder:
        pytest.skip("set RECIPES_NEXT to a folder in which `npm install next react react-dom` was run")
    port = free_port()
    domain = "staging.example" if allowed else "localhost"
    with tempfile.TemporaryDirectory(dir=folder, prefix="app-") as name:
        project = Path(name)
        page = project / "app" / "page.js"
        page.parent.mkdir()
        page.write_text("export default function Page() { return <p>before</p> }")
        layout = "export default function Layout({children}) { return <html><body>{children}</body></html> }"
        page.with_name("layout.js").write_text(layout)
        (project / "next.config.mjs").write_text(f"export default {{allowedDevOrigins: {list(allowed)}}}")
        command = (Path(folder) / "node_modules" / ".bin" / "next", "dev", "-H", "127.0.0.1", "-p", str(port))
        with (
            running(port, *command, environment=_OFFLINE, cwd=project),
            recipe(port, "front", domain=domain) as gateway,
        ):
            visitor = Visitor(gateway, f"front.{domain}")
            assert "before" in visitor.get("/").text
            with visitor.websocket("/_next/hmr?id=0") as socket:
                hear(socket, b'"sync"')
                page.write_text("export default function Page() { return <p>after</p> }")
                hear(socket, b"serverComponentChanges")
            assert "after" in visitor.get("/").text


# Next asks for its newest version and sends what it is used for, which tests do not.
_OFFLINE = {
    "NEXT_TELEMETRY_DISABLED": "1",
    "NODE_OPTIONS": "--import=data:text/javascript,globalThis.fetch=()=>Promise.reject()",
}

"""Files behind the gateway: S3, WebDAV, git and container registries."""

import gzip
import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.recipes.support import APPS, Visitor, python, recipe, running, virtual_environment
from tests.support import RawClient, ScriptedUpstream, free_port, request


@pytest.mark.parametrize(
    ("style", "place"), [("path", "s3.localhost:{}/bucket"), ("virtual", "bucket.s3.localhost:{}")]
)
def test_s3_signatures_are_right_for_paths_and_for_hosts(style: str, place: str) -> None:
    binaries = virtual_environment("S3", "moto[server] boto3")
    port = free_port()
    # moto checks signatures from the fourth request on: the three before make the key.
    environment = {"INITIAL_NO_AUTH_ACTION_COUNT": "3", "S3_IGNORE_SUBDOMAIN_BUCKETNAME": str(style == "path").lower()}
    server = running(port, binaries / "moto_server", "-H", "127.0.0.1", "-p", str(port), environment=environment)
    with server as output, recipe(port, "s3") as gateway:
        urls = (f"http://127.0.0.1:{port}", f"http://s3.localhost:{gateway.port}")
        command = (binaries / "python", "s3_client.py", *urls, style)
        client = subprocess.run(command, cwd=APPS, capture_output=True, text=True, timeout=90, check=False)
        assert client.returncode == 0, (client.stderr, output.read_text())
        url, refusal = client.stdout.split()
        assert url.startswith(f"http://{place.format(gateway.port)}/a%20b/")
        assert refusal == "SignatureDoesNotMatch"


def test_webdav_finds_the_destination_that_the_client_names() -> None:
    binaries = virtual_environment("WEBDAV", "wsgidav cheroot")
    port = free_port()
    with running(port, binaries / "python", "webdav_app.py", str(port)), recipe(port, "dav") as gateway:
        visitor = Visitor(gateway, "dav.localhost")
        here = f"http://{visitor.host}"
        assert visitor.ask("MKCOL", "/folder").status == 201
        assert visitor.ask("PUT", "/folder/a%20b", b"content").status == 201
        assert visitor.ask("PUT", "/chunks", iter([b"one ", b"two"])).status == 201
        assert visitor.get("/chunks").text == "one two"
        assert visitor.ask("COPY", "/folder/a%20b", None, {"Destination": f"{here}/copy"}).status == 201
        assert visitor.ask("MOVE", "/folder/a%20b", None, {"Destination": f"{here}/moved%20on"}).status == 201
        assert visitor.ask("MOVE", "/copy", None, {"Destination": "http://elsewhere.example/copy"}).status == 502
        assert [visitor.get(path).status for path in ("/copy", "/moved%20on", "/folder/a%20b")] == [200, 200, 404]
        listed = visitor.ask("PROPFIND", "/", None, {"Depth": "1"})
        assert listed.status == 207
        assert "/moved%20on" in listed.text


def test_s3_and_webdav_see_what_was_signed_and_the_name_that_the_client_uses() -> None:
    upstream = ScriptedUpstream()
    try:
        with recipe(upstream.port, "s3", "dav") as gateway:
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


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def test_git_clones_and_pushes(tmp_path: Path) -> None:
    if not shutil.which("git") or not (Path(_run("git", "--exec-path").strip()) / "git-http-backend").exists():
        pytest.skip("git's http-backend is not installed")
    source, clone = tmp_path / "repositories" / "source", tmp_path / "clone"
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C")
    _run("git", "init", "-q", "--bare", source)
    port = free_port()
    command = python("-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "git_app:app")
    server = running(port, *command, environment={"GIT_PROJECT_ROOT": str(source.parent)})
    with server, recipe(port, "git", routes={"git": {"host": "*"}}) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/source"
        _run("git", "clone", "-q", url, clone)
        # More than http.postBuffer, so that git sends it in chunks.
        content = random.Random(1).randbytes(3_000_000)
        (clone / "large").write_bytes(content)
        for arguments in (("add", "."), ("commit", "-q", "-m", "x"), ("push", "-q", "origin", "HEAD")):
            _run(*git, clone, *arguments)
        _run("git", "clone", "-q", url, tmp_path / "again")
        assert (tmp_path / "again" / "large").read_bytes() == content


def test_an_image_goes_to_a_registry_and_comes_back(tmp_path: Path) -> None:
    _needs_registry()
    layer = gzip.compress(random.Random(1).randbytes(3_000_000), 1)
    image = _image(tmp_path / "image", layer)
    port = free_port()
    with (
        running(port, "docker-registry", "serve", _registry(tmp_path, port)),
        recipe(port, "registry", routes={"registry": {"host": "*"}}) as gateway,
    ):
        name = f"docker://127.0.0.1:{gateway.port}/team/app:1"
        copy = ("skopeo", "--insecure-policy", "copy", "-q")
        _run(*copy, "--dest-tls-verify=false", f"dir:{image}", name)
        _run(*copy, "--src-tls-verify=false", name, f"dir:{tmp_path / 'back'}")
        assert (tmp_path / "back" / hashlib.sha256(layer).hexdigest()).read_bytes() == layer


@pytest.mark.parametrize("trusted", [True, False])
def test_a_registry_says_where_to_upload_to_on_the_terminators_scheme(tmp_path: Path, trusted: bool) -> None:
    _needs_registry()
    port = free_port()
    server = {"server": {"trusted_proxies": ["127.0.0.1"] if trusted else []}}
    with (
        running(port, "docker-registry", "serve", _registry(tmp_path, port)),
        recipe(port, "registry", **server) as gateway,
    ):
        visitor = Visitor(gateway, "registry.localhost", {"X-Forwarded-Proto": "https"})
        begun = visitor.ask("POST", "/v2/team/app/blobs/uploads/")
        assert begun.status == 202
        scheme = "https" if trusted else "http"
        assert begun.headers["Location"].startswith(f"{scheme}://{visitor.host}/v2/team/app/blobs/uploads/")


def _needs_registry() -> None:
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("docker-registry and skopeo are not installed: apt-get install docker-registry skopeo")


def _registry(directory: Path, port: int) -> Path:
    path = directory / "registry.yaml"
    storage = {"filesystem": {"rootdirectory": str(directory / "storage")}}
    content = {"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
    path.write_text(json.dumps(content))
    return path


def _image(directory: Path, layer: bytes) -> Path:
    """An image of one layer, in the form that skopeo calls dir."""
    identity = f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}"
    settings = {"architecture": "amd64", "os": "linux", "config": {}}
    config = json.dumps({**settings, "rootfs": {"type": "layers", "diff_ids": [identity]}}).encode()
    docker = "application/vnd.docker"
    parts = [
        {"mediaType": f"{docker}.{kind}", "size": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
        for kind, data in (("container.image.v1+json", config), ("image.rootfs.diff.tar.gzip", layer))
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{docker}.distribution.manifest.v2+json",
        "config": parts[0],
        "layers": parts[1:],
    }
    directory.mkdir()
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_text(json.dumps(manifest))
    for data in (config, layer):
        (directory / hashlib.sha256(data).hexdigest()).write_bytes(data)
    return directory

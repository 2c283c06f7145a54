"""Language models and MCP: answers that are silent for a while."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.recipes.support import APPS, Visitor, python, recipe, running, virtual_environment
from tests.support import Gateway, RawClient, free_port, request

EVENTS, LINES = "text/event-stream", "application/x-ndjson"


def ask(gateway: Gateway, media_type: str, silence: float) -> tuple[bytes, bool]:
    """Ask the model and give what came, and whether it was whole."""
    target = f"/v1/chat/completions?silence={silence}&type={media_type}"
    with RawClient(gateway.port, timeout=60) as client:
        client.send(request("POST", target, body=b"{}", host="llm.localhost"))
        answer = client.start_response("POST")
        assert answer.piece(60) == b"data: one\n\n", "what was said before the silence comes before it"
        whole = answer.finish(60)
        return whole.body, whole.complete


@pytest.mark.parametrize(
    ("media_type", "bounds", "is_whole"),
    [
        (EVENTS, {"read_idle": "500ms", "tunnel_idle": "1m"}, True),
        (EVENTS, {"read_idle": "1m", "tunnel_idle": "500ms"}, False),
        (LINES, {"read_idle": "500ms", "tunnel_idle": "1m"}, False),
        (LINES, {"read_idle": "1m", "tunnel_idle": "500ms"}, True),
    ],
)
def test_silence_has_the_bound_that_the_page_says(media_type: str, bounds: dict[str, str], is_whole: bool) -> None:
    port = free_port()
    routes = {"llm": {"to": port, "timeouts": {"response": "1m", **bounds}}}
    server = running(port, *python("-m", "uvicorn", "model:app", "--port", str(port)))
    with server, recipe(port, "llm", routes=routes) as gateway:
        body, complete = ask(gateway, media_type, 1)  # twice what is too long
        assert complete is is_whole
        assert (b"two" in body) is is_whole


@pytest.mark.long
@pytest.mark.parametrize("media_type", [EVENTS, LINES])
def test_a_model_may_think_for_more_than_a_minute(media_type: str) -> None:
    port = free_port()
    with running(port, *python("-m", "uvicorn", "model:app", "--port", str(port))), recipe(port, "llm") as gateway:
        assert ask(gateway, media_type, 75) == (b"data: one\n\ndata: two\n\n", True)


@contextlib.contextmanager
def talking(python: Path, url: str, mode: str) -> Iterator[str]:
    """What a client of MCP prints first; it stays connected while the block runs, and has to end well."""
    command = (python, "mcp_client.py", url, mode)
    with subprocess.Popen(command, cwd=APPS, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as client:
        killer = threading.Timer(90, client.kill)  # readline has no time-out
        killer.start()
        try:
            assert client.stdout
            yield client.stdout.readline()
            _, errors = client.communicate("")
            assert client.returncode == 0, errors
        finally:
            killer.cancel()
            client.kill()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_of_mcp_calls_a_tool_that_takes_its_time(mode: str) -> None:
    binaries = virtual_environment("MCP", "mcp")
    port = free_port()
    environment = {"PORT": str(port), "SILENCE": "2", "ALLOW": "yes"}
    server = running(port, binaries / "python", "mcp_app.py", environment=environment)
    # The tool and the stream are silent for longer than other answers may be.
    with server, recipe(port, "mcp", defaults={"timeouts": {"read_idle": "500ms"}}) as gateway:
        with talking(binaries / "python", f"http://mcp.localhost:{gateway.port}/mcp", mode) as said:
            assert said == "['add'] 42\n"
            assert gateway.access_entry(method="POST", status=200)
            assert not [line for line in gateway.access_log() if line["method"] == "GET"], "the stream has ended"
        if mode == "legacy":  # where the client listens with GET from the beginning on
            stream = gateway.access_entry(method="GET")
            assert (stream["status"], stream["duration_ms"] > 2000) == (200, True)


@pytest.mark.parametrize(("allow", "refused"), [("yes", False), ("", True)])
def test_an_mcp_server_wants_to_be_told_its_names(allow: str, refused: bool) -> None:
    binaries = virtual_environment("MCP", "mcp")
    port = free_port()
    environment = {"PORT": str(port), "SILENCE": "0", "ALLOW": allow}
    server = running(port, binaries / "python", "mcp_app.py", environment=environment)
    with server, recipe(port, "mcp") as gateway:
        visitor = Visitor(gateway, "mcp.localhost")
        fields = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        origin = {"Origin": f"http://{visitor.host}"}
        answer = visitor.ask("POST", "/mcp", json.dumps({"jsonrpc": "2.0"}), {**fields, **origin})
        assert answer.status == (421 if refused else 400), "which is no call, but a host that it knows"

"""Applications that talk to their page through a WebSocket or an event stream: Streamlit, Gradio and Jupyter."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.support import Visitor, hear, recipe, running, say, virtual_environment
from tests.support import free_port, wait_until
from tests.support.websocket import BINARY, TEXT


def test_streamlit_sends_what_the_script_wrote() -> None:
    binaries = virtual_environment("STREAMLIT", "streamlit")
    port = free_port()
    options = ("--server.address", "127.0.0.1", "--server.headless", "true", "--browser.gatherUsageStats", "false")
    command = (binaries / "streamlit", "run", "streamlit_app.py", "--server.port", str(port), *options)
    # What the page sends first: run the script.
    code = "import sys, streamlit.proto.BackMsg_pb2 as b; m = b.BackMsg(); m.rerun_script.query_string = ''; "
    code += "m.rerun_script.SetInParent(); sys.stdout.buffer.write(m.SerializeToString())"
    first = subprocess.run((binaries / "python", "-c", code), capture_output=True, check=True).stdout
    with running(port, *command), recipe(port, "dash") as gateway:
        visitor = Visitor(gateway, "dash.localhost")
        wait_until(lambda: visitor.get("/_stcore/health").status == 200, 60, "Streamlit being healthy")
        assert "<title>Streamlit</title>" in visitor.get("/").text
        with visitor.websocket("/_stcore/stream", {"Sec-WebSocket-Protocol": "streamlit"}) as socket:
            say(socket, BINARY, first)
            hear(socket, b"said by streamlit")


@pytest.mark.parametrize(
    ("name", "host", "prefix"), [("demo", "demo.localhost", ""), ("demo-below", "tools.localhost", "/demo")]
)
def test_gradio_streams_what_the_function_gives(name: str, host: str, prefix: str) -> None:
    binaries = virtual_environment("GRADIO", "gradio")
    port = free_port()
    environment = {"PORT": str(port), "ROOT_PATH": prefix, "GRADIO_ANALYTICS_ENABLED": "False"}
    server = running(port, binaries / "python", "gradio_app.py", environment=environment)
    with server, recipe(port, name, defaults={"timeouts": {"read_idle": "500ms"}}) as gateway:
        visitor = Visitor(gateway, host)
        wait_until(lambda: visitor.get(f"{prefix}/").status == 200, 60, "Gradio serving its page")
        configuration = json.loads(visitor.get(f"{prefix}/config").body)
        assert configuration["root"] == f"http://{visitor.host}{prefix}"
        fields = {"Content-Type": "application/json"}
        called = visitor.ask("POST", f"{prefix}/gradio_api/call/count", json.dumps({"data": ["number"]}), fields)
        event = json.loads(called.body)["event_id"]
        streamed = visitor.get(f"{prefix}/gradio_api/call/count/{event}")
        assert streamed.headers.get_content_type() == "text/event-stream"
        assert [f"number {n}" in streamed.text for n in range(3)] == [True, True, True]


@pytest.mark.parametrize("option", ["local_hostnames=lab.localhost", "allow_remote_access=True"])
def test_jupyter_runs_code_in_a_kernel_and_in_a_terminal(option: str) -> None:
    port = free_port()
    with running(port, *_jupyter(port, f"--ServerApp.{option}")), recipe(port, "lab") as gateway:
        visitor = Visitor(gateway, "lab.localhost")
        assert visitor.get("/?token=of-a-test").status in {200, 302}, "after which a cookie does"
        with kernel(visitor) as name, visitor.websocket(f"/api/kernels/{name}/channels") as socket:
            say(socket, TEXT, json.dumps(_EXECUTE).encode())
            hear(socket, b'"said by 42\\n"')
        terminal = json.loads(visitor.ask("POST", "/api/terminals", "{}", _TOKEN).body)["name"]
        with visitor.websocket(f"/terminals/websocket/{terminal}") as socket:
            say(socket, TEXT, json.dumps(["stdin", "echo said by $((40+2))\n"]).encode())
            hear(socket, b"said by 42")


def test_jupyter_refuses_a_host_that_it_was_not_told() -> None:
    port = free_port()
    with running(port, *_jupyter(port)), recipe(port, "lab") as gateway:
        assert Visitor(gateway, "lab.localhost").get("/api/status", _TOKEN).status == 403


def test_jupyter_wants_the_host_that_the_page_has() -> None:
    port = free_port()
    with running(port, *_jupyter(port)), recipe(port, "lab", routes={"lab": {"pass_host": False}}) as gateway:
        visitor = Visitor(gateway, "lab.localhost")
        assert visitor.get("/?token=of-a-test").status in {200, 302}
        with kernel(visitor) as name, pytest.raises(AssertionError, match="403"):
            visitor.websocket(f"/api/kernels/{name}/channels")


@contextlib.contextmanager
def kernel(visitor: Visitor) -> Iterator[str]:
    """Start a kernel for the block; its process has a session of its own, so it has to be ended."""
    name = json.loads(visitor.ask("POST", "/api/kernels", "{}", _TOKEN).body)["id"]
    try:
        yield name
    finally:
        assert visitor.ask("DELETE", f"/api/kernels/{name}", None, _TOKEN).status == 204


def _jupyter(port: int, *options: str) -> list[str | Path]:
    binaries = virtual_environment("JUPYTER", "jupyter-server ipykernel")
    token = "--IdentityProvider.token=of-a-test"
    return [binaries / "jupyter-server", "--allow-root", token, f"--ServerApp.port={port}", *options]


_TOKEN = {"Authorization": "token of-a-test"}
_EXECUTE = {
    "header": {"msg_id": "1", "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"},
    "parent_header": {},
    "metadata": {},
    "channel": "shell",
    "buffers": [],
    "content": {
        "code": "print('said by', 40 + 2)",
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    },
}

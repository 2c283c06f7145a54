"""The command line, in this process where that is the same, and as a process where it is not."""

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from devhost_server import __version__, cli
from tests.support import refusing_port


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """In an empty folder, without variables of the machine's own."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith("DEVHOST") or name == "NO_COLOR":
            monkeypatch.delenv(name)


def run(*arguments, code=0, **more):
    result = CliRunner().invoke(cli.cli, arguments, prog_name="devhost-server", **more)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def write(text, name="devhost.yaml"):
    path = Path("config") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


# --- files -----------------------------------------------------------------------------------------------------------


def test_check_prints_the_routes():
    write(
        """
        upstreams: {api: {targets: ["http://a:1", {url: "http://b:2", weight: 3}]}}
        routes:
          web: 3000
          api: {host: [x.y, "*.z"], path: /v1, methods: [GET, POST], headers: {x-a: b}, upstream: api, owner: me}
          ping: {host: "*", path: /ping, respond: {body: pong}}
        """
    )
    lines = run("check").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["ROUTE", "web", "api", "ping"]
    assert lines[0].split() == [*("ROUTE", "HOST", "PATH", "METHODS", "HEADERS", "ANSWER", "TARGETS", "OWNER")]
    assert [cell.strip() for cell in lines[2].split("  ") if cell] == [
        *("api", "x.y, *.z", "/v1", "GET,POST", "x-a: b", "upstream api", "http://a:1, http://b:2 x3", "me")
    ]
    assert "answers 200" in lines[3]
    assert lines[-1] == "3 routes, environment dev, from config/devhost.yaml"
    assert run("validate").stdout == run("check").stdout


def test_check_says_where_it_will_listen():
    write("server: {bind: ['127.0.0.1:7', '[::]:8', '0.0.0.0:9', '[::1]:10', 'unix:/run/x.sock']}")
    assert run("check").stdout.splitlines()[-2] == (
        "listens on http://127.0.0.1:7, http://localhost:8 ([::]:8: every address, IPv4 and IPv6), "
        "http://127.0.0.1:9 (0.0.0.0:9: every IPv4 address), http://[::1]:10, unix:/run/x.sock"
    )


WIDE = """
upstreams: {api: {targets: ["http://a:1", "http://b:2"], timeouts: {read_idle: 5m}}}
routes:
  api:
    host: [one.example, two.example]
    path: /v1
    upstream: api
    strip_prefix: true
    methods: [GET, POST]
    headers: {x-a: b}
    timeouts: {response: 2m}
    owner: me
  ping: {host: "*", respond: {}}
"""


def test_check_shows_prefix_and_time_outs_where_there_are_any():
    write(WIDE)
    head, api, _ = run("check").stdout.splitlines()[:3]
    assert head.split() == ["ROUTE", "HOST", "PATH", "METHODS", "HEADERS", "ANSWER", "TARGETS", "TIME-OUTS", "OWNER"]
    assert "/v1 (cut off)" in api
    assert "response 2m, read_idle 5m" in api
    route = json.loads(run("check", "--json").stdout)["routes"][0]
    assert route["strip_prefix"] is True
    assert (route["timeouts"]["response"], route["timeouts"]["read_idle"]) == (120, 300)
    write("routes: {web: 3000}")
    assert "TIME-OUTS" not in run("check").stdout


@pytest.mark.parametrize("width", [200, 120, 100, 80])
def test_a_table_keeps_to_the_terminal(monkeypatch, width):
    monkeypatch.setattr("devhost_server.cli._width", lambda: width)
    write(WIDE)
    lines = run("check").stdout.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in ("one.example", "two.example", "/v1 (cut off)", "GET,POST", "x-a: b", "upstream api", "http://a:1",
                 "http://b:2", "response 2m", "read_idle 5m", "me"):  # fmt: skip
        assert part in text
    assert (len(lines) == 3) == (width == 200)


def test_no_colour_is_honoured(monkeypatch):
    write("routes: {web: 3000}")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run("check", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("check", color=True).stdout


def test_check_works_in_an_empty_folder():
    assert "whoami.localhost" in run("check").stdout


def test_check_says_everything_that_is_wrong():
    write("server: {wrokers: 1}\nlog: {level: x}\n")
    result = run("check", code=1)
    assert result.stdout == ""
    first, second, summary = result.stderr.splitlines()
    assert first.startswith("config/devhost.yaml:1:10: server.wrokers: unknown key; allowed: bind, workers")
    assert first.endswith("(did you mean workers?)")
    assert second.startswith("config/devhost.yaml:2:14: log.level: ")
    assert summary == "2 mistakes in the configuration"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("no-such-user", "there is no user no-such-user on this machine"),
        ("nobody:no-such-group", "there is no group no-such-group on this machine"),
        ("4000000", "the user 4000000 has no entry on this machine; give a group too: 4000000:GROUP"),
    ],
)
def test_check_looks_for_the_user(user, said):
    write(f"server:\n  user: {user!r}\n")
    stderr = run("check", code=1).stderr
    assert stderr == f"config/devhost.yaml:2:9: server.user: {said}\n1 mistake in the configuration\n"
    (error,) = json.loads(run("check", "--json", code=1).stdout)["errors"]
    assert (error["key"], error["message"]) == ("server.user", said)
    assert run("--set", "server.user=nobody", "check").stdout


def test_check_as_json():
    good = json.loads(run("check", "--json").stdout)
    assert good["ok"]
    assert good["routes"][0]["name"] == "whoami"
    assert good["routes"][0]["targets"] == [{"url": "http://127.0.0.1:7779", "weight": 1}]
    write("domain: ${NOPE}")
    bad = json.loads(run("check", "--json", code=1).stdout)
    assert not bad["ok"]
    assert bad["errors"] == [
        {
            "file": "config/devhost.yaml",
            "line": 1,
            "column": 9,
            "key": "domain",
            "message": "the variable NOPE is not set; set it, or give a default as in ${NOPE:-…}",
        }
    ]


def test_check_shows_no_secret():
    write("s3cret\n", "tok")
    write(
        """
        routes:
          a: {to: 3000, headers: {x-plain: "${file:tok}", x-token: s3cret}}
          b: {respond: {body: "${file:tok}", headers: {x-b: "${file:tok}"}}}
          c: {to: "http://${file:tok}:80"}
        """
    )
    for verb in (["check"], ["check", "--json"], ["validate"], ["config", "show"]):
        shown = run(*verb).stdout
        assert "s3cret" not in shown
        assert "********" in shown


def test_global_options_stand_before_or_after_the_verb():
    write("domain: a")
    write("domain: b", "devhost.qa.yaml")
    Path("c.yaml").write_text("domain: c")
    Path("d.yaml").write_text("domain: d")

    def domain(*arguments):
        return run(*arguments).stdout.strip()

    assert domain("--env", "qa", "config", "show", "domain") == "b"
    assert domain("config", "show", "--env", "qa", "domain") == "b"
    assert domain("config", "--env", "qa", "show", "domain") == "b"
    assert domain("--env", "dev", "config", "show", "domain", "--env", "qa") == "b"
    assert domain("-c", "d.yaml", "config", "show", "domain", "-c", "c.yaml") == "c"
    assert domain("--set", "domain=x", "config", "show", "domain") == "x"
    assert domain("--set", "domain=x", "config", "show", "domain", "--set", "domain=y") == "y"
    assert domain("--config-dir", "config", "config", "show", "domain") == "a"


def test_variables_choose_too(monkeypatch):
    write("domain: a")
    write("domain: b", "devhost.qa.yaml")
    monkeypatch.setenv("DEVHOST_ENV", "qa")
    assert run("config", "show", "domain").stdout == "b\n"
    monkeypatch.setenv("DEVHOST__DOMAIN", "v")
    assert run("config", "show", "domain").stdout == "v\n"


def test_config_show():
    write("server: {workers: 3}\nadmin: {token: hunter2}\n")
    text = run("config", "show").stdout
    assert "  workers: 3\n" in text
    assert "hunter2" not in text
    assert run("config", "show", "server.workers", "--origin").stdout == "3  # config/devhost.yaml:1:19\n"
    assert json.loads(run("config", "show", "server.drain", "--json").stdout) == {"delay": "0s", "timeout": "30s"}
    origins = json.loads(run("config", "show", "server", "--json", "--origin").stdout)
    assert origins["server.workers"] == {"value": 3, "origin": "config/devhost.yaml:1:19"}
    assert origins["server.limits.head"] == {"value": "64KiB", "origin": "default"}


def test_config_show_of_an_unknown_key_is_usage():
    assert "(did you mean limits?)" in run("config", "show", "server.limts", code=2).stderr


def test_config_diff():
    write("server: {workers: 3}")
    write("domain: ${A}", "devhost.a.yaml")
    write("domain: b\nserver: {bind: [127.0.0.1:1]}", "devhost.b.yaml")
    lines = run("config", "diff", "a", "b").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["KEY", "A", "B"],
        ["server.bind", "[127.0.0.1:7777]", "[127.0.0.1:1]"],
        ["domain", "${A}", "b"],
    ]
    assert json.loads(run("config", "diff", "a", "b", "--json").stdout)["domain"] == {"a": "${A}", "b": "b"}
    assert run("config", "diff", "a", "a").stdout == "a and a do not differ\n"
    assert "devhost.c.yaml" in run("config", "diff", "a", "c", code=1).stderr
    assert "-c replaces" in run("-c", "x", "config", "diff", "a", "b", code=2).stderr


def test_config_schema_is_json():
    assert json.loads(run("config", "schema").stdout)["title"] == "devhost-server configuration"
    assert run("config", "schema", "--json").stdout == run("config", "schema").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chekc"], "Did you mean 'check'?"),
        (["check", "--nope"], "No such option"),
        (["--set", "x", "check"], "write key.path=value"),
        (["check", "--set", "=x"], "write key.path=value"),
        (["config", "show", "a", "b"], "unexpected extra argument"),
        (["status", "--admin", "nope"], "write http://host:port or unix:/path"),
        (["explain", "GET", "http://x/", "-H", "a: b"], "`explain` is not built in this version"),
        (["explain", "--help"], "`explain` is not built in this version"),
        (["route", "add", "x", "--to", "http://y"], "`route` is not built in this version"),
    ],
)
def test_usage(arguments, says):
    result = run(*arguments, code=2)
    assert says in result.stderr
    assert result.stdout == ""


def test_help_and_version():
    assert run("--version").stdout == f"devhost-server {__version__}\n"
    text = run("-h").stdout
    for verb in ("run", "check", "config", "routes", "status", "reload", "drain"):
        assert f"\n  {verb} " in text
    assert "explain" not in text
    assert "--admin" in run("status", "--help").stdout


def test_a_bad_configuration_never_starts():
    write("server: {wrokers: 1}")
    for arguments in ((), ("run",), ("--set", "domain=x")):
        assert "server.wrokers" in run(*arguments, code=1).stderr


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    assert "\x1b[1m" in run("check", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("check", color=True).stdout


def process(*arguments, **environ):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DEVHOST")}
    command = [sys.executable, "-m", "devhost_server", *arguments]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, timeout=30, check=False)


def test_the_module_is_the_command():
    done = process("check")
    assert (done.returncode, done.stderr) == (0, "")
    done = process("--env", "prod", "check")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments",
    [("check",), ("check", "--json"), ("config", "show"), ("config", "schema"), ("--help",), ("--version",)],
)
def test_a_full_disk_is_said(arguments):
    command = [sys.executable, "-m", "devhost_server", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (1, "the output cannot be written: no space left on device\n")
        assert subprocess.run(command, stdout=full, stderr=full, timeout=30, check=False).returncode == 1


def test_errors_that_cannot_be_written_are_errors_still():
    with Path("/dev/full").open("w") as full:
        for arguments in (("--env", "prod", "check"), ("chekc",), ("status", "--admin", "unix:/nope")):
            command = [sys.executable, "-m", "devhost_server", *arguments]
            assert subprocess.run(command, stderr=full, timeout=30, check=False).returncode in (1, 2)


def unread(*arguments):
    """Run a command whose output nobody reads; give what is on stderr, and the exit code of the whole line."""
    command = f'set -o pipefail; "$0" -m devhost_server {" ".join(arguments)} | true'
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        closed = [sys.executable, "-m", "devhost_server", *arguments]
        first = subprocess.run(closed, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    line = ["bash", "-c", command, sys.executable]
    second = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert (first.returncode, first.stderr) == (second.returncode, second.stderr)
    return first.stderr, first.returncode


@pytest.mark.parametrize(
    "arguments", ["config schema", "config show", "config diff a a", "check", "--help", "--version"]
)
def test_a_reader_who_leaves_is_told_nothing(arguments):
    write("", "devhost.a.yaml")
    assert unread(*arguments.split()) == ("", 0)


def test_a_reader_who_leaves_changes_no_verdict():
    write("server: {wrokers: 1}")
    assert unread("check", "--json") == ("", 1)
    assert "server.wrokers" in unread("check")[0]


def test_checking_loads_nothing_that_serves():
    heavy = "asyncio", "gunicorn", "uvicorn", "uvloop", "httpx", "starlette", "prometheus_client", "ssl"
    code = f"import sys, devhost_server.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


# --- a running gateway -----------------------------------------------------------------------------------------------

ROUTES = {
    "generation": 3,
    "routes": [
        {
            "name": "api",
            "hosts": ["api.localhost"],
            "path": "/v1",
            "methods": ["GET"],
            "headers": {"x-a": "b"},
            "upstream": "api",
            "targets": [
                {"url": "http://a:1", "weight": 1, "up": True},
                {"url": "http://b:1", "weight": 2, "up": False},
                {"url": "http://c:1", "weight": 1, "up": None},
            ],
            "owner": "me\x1b[2J",
            "respond": None,
        },
        {"name": "ping", "hosts": ["*"], "path": "/ping", "respond": {"status": 404}, "upstream": None, "targets": []},
    ],
}
STATUS = {
    "version": "1.2.3",
    "env": "dev",
    "generation": 3,
    "uptime_s": 93784.5,
    "state": "running",
    "pid": 77,
    "workers": [
        {
            "slot": 0,
            "pid": 78,
            "state": "ready",
            "generation": 3,
            "connections": 14,
            "in_flight": 2,
            "websockets": 1,
            "restarts": 0,
        }
    ],
    "upstreams": [
        {
            "name": "api",
            "targets": [
                {
                    "url": f"http://{name}:1",
                    "in_flight": 1,
                    "connections_active": 1,
                    "connections_idle": 4,
                    "up": up,
                    "failing_since": since,
                }
                for name, up, since in (("a", True, None), ("b", False, "2026-11-21T06:00:00Z"), ("c", None, None))
            ],
        }
    ],
    "last_reload": {"result": "failed", "at": "2026-11-21T06:00:00Z", "generation": 3, "errors": ["x.yaml:1:1: no"]},
}


class Admin:
    """An admin listener that answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {
            "GET /api/routes": (200, ROUTES),
            "GET /api/status": (200, STATUS),
            "POST /api/reload": (200, {"result": "ok", "generation": 4}),
            "POST /api/drain": (202, {"state": "draining"}),
        }
        self.tokens: list[str | None] = []
        self.hosts: list[str | None] = []
        self.address = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        admin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                admin.tokens.append(self.headers.get("Authorization"))
                admin.hosts.append(self.headers.get("Host"))
                status, answer = admin.answers[f"{self.command} {self.path}"]
                body = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.do_GET()

            def address_string(self) -> str:
                return "client"

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def admin():
    made = Admin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), made.handler())
    made.address = f"127.0.0.1:{server.server_port}"
    with serving(server):
        yield made


@pytest.mark.parametrize("verb", ["routes", "routes --json", "status", "status --json", "reload", "drain"])
def test_a_reader_who_leaves_is_no_failure_of_the_gateway(admin, verb):
    assert unread(*verb.split(), "--admin", admin.address) == ("", 0)


def test_a_reload_that_fails_is_one_whoever_reads(admin):
    admin.answers["POST /api/reload"] = (422, {"errors": ["x.yaml:1:1: no"], "detail": "not accepted"})
    assert unread("reload", "--admin", admin.address)[1] == 1
    assert unread("reload", "--json", "--admin", admin.address) == ("", 1)


def test_routes(admin):
    result = run("routes", "--admin", f"http://{admin.address}")
    lines = result.stdout.splitlines()
    assert "http://a:1 (up), http://b:1 x2 (down), http://c:1" in lines[1]
    assert r"me\x1b[2J" in lines[1]
    assert "answers 404" in lines[2]
    assert lines[-1] == "2 routes, generation 3"
    assert json.loads(run("routes", "--json", "--admin", admin.address).stdout) == ROUTES


def test_status(admin):
    text = run("status", "--admin", admin.address).stdout
    assert text.splitlines()[0] == ("devhost-server 1.2.3: running, environment dev, generation 3, up 1d 2h, pid 77")
    assert [line.split() for line in text.splitlines() if line.startswith("0 ")] == [
        ["0", "78", "ready", "3", "14", "2", "1", "0"]
    ]
    assert "WORKER" in text
    assert [line.partition("4  ")[2].strip() for line in text.splitlines() if line.startswith("api ")] == [
        "up",
        "down since 2026-11-21T06:00:00Z",
        "not tried yet",
    ]
    assert "last reload: failed at 2026-11-21T06:00:00Z, generation 3\n  x.yaml:1:1: no\n" in text
    assert json.loads(run("status", "--json", "--admin", admin.address).stdout) == STATUS


def test_the_address_and_token_come_from_the_configuration(admin):
    write(f"admin: {{bind: {admin.address}, token: hunter2}}")
    run("status")
    assert admin.tokens == ["Bearer hunter2"]


def test_a_token_that_is_given_goes_before_the_configurations(admin, monkeypatch):
    write(f"admin: {{bind: {admin.address}, token: hunter2}}")
    monkeypatch.setenv("DEVHOST_TOKEN", "from-the-environment")
    run("status")
    run("status", "--token", "given")
    run("--token", "given-before", "routes", "--admin", admin.address)
    monkeypatch.setenv("DEVHOST_TOKEN", "")
    run("status")
    assert admin.tokens == [f"Bearer {token}" for token in ("from-the-environment", "given", "given-before", "hunter2")]


def test_a_token_is_given_to_a_gateway_whose_configuration_is_broken(admin):
    write("admin: {bind: 0.0.0.0:1}")
    run("status", "--token", "given", "--admin", admin.address)
    assert admin.tokens == ["Bearer given"]


@pytest.mark.parametrize("token", ["two words", "two\nlines", "caf\xe9"])
def test_what_cannot_be_a_token_is_wrong_usage(monkeypatch, token):
    assert "--token" in run("status", "--token", token, "--admin", "unix:/nope", code=2).stderr
    monkeypatch.setenv("DEVHOST_TOKEN", token)
    assert "DEVHOST_TOKEN" in run("status", "--admin", "unix:/nope", code=2).stderr


def test_the_gateway_is_called_by_the_name_that_was_given(admin):
    run("status", "--admin", f"localhost:{admin.address.rpartition(':')[2]}")
    run("status", "--admin", admin.address)
    assert [host.partition(":")[0] for host in admin.hosts] == ["localhost", "127.0.0.1"]


def test_without_a_token_none_is_sent(admin):
    run("status", "--admin", admin.address)
    assert admin.tokens == [None]


def test_a_listener_on_every_address_is_asked_on_loopback(admin):
    write(f"admin: {{bind: '0.0.0.0:{admin.address.rpartition(':')[2]}', token: x}}")
    run("status")
    assert admin.tokens == ["Bearer x"]


def test_a_unix_socket(tmp_path):
    made = Admin()
    with serving(UnixServer(str(tmp_path / "admin.sock"), made.handler())):
        write(f"admin: {{bind: 'unix:{tmp_path}/admin.sock'}}")
        assert "generation 3" in run("status").stdout
        assert "generation 3" in run("status", "--admin", f"unix:{tmp_path}/admin.sock").stdout


def test_reload(admin):
    assert run("reload", "--admin", admin.address).stdout == "reloaded: every worker serves generation 4\n"
    assert json.loads(run("reload", "--json", "--admin", admin.address).stdout)["generation"] == 4


def test_a_reload_that_is_refused_says_why(admin):
    admin.answers["POST /api/reload"] = (422, {"title": "no", "errors": ["config/devhost.yaml:1:1: x: wrong"]})
    result = run("reload", "--admin", admin.address, code=1)
    assert result.stderr.splitlines() == [
        "config/devhost.yaml:1:1: x: wrong",
        "not reloaded: the configuration from before keeps serving",
    ]
    assert json.loads(run("reload", "--json", "--admin", admin.address, code=1).stdout)["errors"]


def test_a_reload_is_asked_for_even_if_the_files_are_wrong(admin):
    write(f"admin: {{bind: {admin.address}}}\nserver: {{nope: 1}}")
    assert "generation 4" in run("reload").stdout


def test_drain(admin):
    assert run("drain", "--admin", admin.address).stdout.startswith("draining: ")


def test_nothing_listens():
    with refusing_port() as port:
        for verb in ("routes", "status", "reload", "drain"):
            said = run(verb, "--admin", f"127.0.0.1:{port}", code=1).stderr
            assert said.startswith(f"no gateway answers on 127.0.0.1:{port} (connection refused); start one, or name ")
    assert "no such file" in run("status", "--admin", "unix:/nope/x.sock", code=1).stderr


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {"title": "no"}), "wants a token that is not the admin.token of this configuration"),
        ((503, {"title": "Draining", "detail": "it is stopping"}), "answered 503 to GET /api/status: it is stopping"),
        ((500, None), "answered 500 to GET /api/status"),
        ((200, b"<html>"), "is not a devhost-server"),
    ],
)
def test_answers_that_do_not_help(admin, answer, says):
    admin.answers["GET /api/status"] = answer
    assert says in run("status", "--admin", admin.address, code=1).stderr


@pytest.mark.parametrize("status", [200, 202, 422])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'"x"',
        b"null",
        b"{" + b'"generation": 1}',
        b'{"result": "failed", "generation": 2}',
        b'{"result": "ok", "generation": "2"}',
        b'{"state": "running", "errors": "x"}',
        b'{"generation": 1, "routes": [{"name": "a"}], "workers": [1], "errors": [1]}',
        b"[" * 100_000,
    ],
)
def test_another_server_is_never_believed(admin, status, body):
    for verb, call in (("routes", "GET"), ("status", "GET"), ("reload", "POST"), ("drain", "POST")):
        admin.answers[f"{call} /api/{verb}"] = (status, body)
        for more in ((), ("--json",)):
            result = run(verb, "--admin", admin.address, *more, code=1)
            assert result.stdout == ""
            if status != 422 or verb == "reload" or body.startswith(b"[["):
                assert "is not a devhost-server" in result.stderr


def test_what_is_no_http_is_no_gateway():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert "is not a devhost-server" in run("status", "--admin", address, code=1).stderr
        thread.join()


def test_a_gateway_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(cli, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert "did not answer within" in run("status", "--admin", address, code=1).stderr


def test_a_layer_that_cannot_be_read_may_be_why_nothing_answers(monkeypatch):
    with refusing_port() as port:
        monkeypatch.setenv("DEVHOST__ADMIN__BIND", f"127.0.0.1:{port}")
        Path("config").mkdir()
        Path("config/devhost.yaml").symlink_to("gone")
        first, second = run("reload", code=1).stderr.splitlines()
        assert first == "config/devhost.yaml: cannot be read: no such file or directory"
        assert second.startswith("no gateway answers")
        assert len(run("reload", "--admin", f"127.0.0.1:{port}", code=1).stderr.splitlines()) == 1


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("check", code=1).stderr.startswith("the working directory is gone")
    assert run("check", "--config-dir", "config", code=1).stderr.startswith("the working directory is gone")


@pytest.mark.parametrize("how", ["option", "variable", "file"])
def test_a_working_directory_that_is_gone_does_not_matter_where_paths_are_whole(tmp_path, monkeypatch, how):
    write("routes: {found: 3000}")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    place = ["--config-dir", str(tmp_path / "config")]
    if how == "variable":
        monkeypatch.setenv("DEVHOST_CONFIG_DIR", place.pop())
        place.pop()
    elif how == "file":
        place = ["-c", str(tmp_path / "config" / "devhost.yaml")]
    assert "found.localhost" in run("check", *place).stdout


def test_no_admin_listener():
    write("admin: {bind: null}")
    assert "admin.bind is null" in run("status", code=1).stderr


def test_a_wrong_admin_section_is_said():
    write("admin: {bind: 0.0.0.0:1}")
    assert "admin.bind" in run("status", code=1).stderr

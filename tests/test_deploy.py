"""What deploy/ promises, as far as it can be held to it without systemd as process 1 and without Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from devhost_server.config import Settings, Sources, load
from devhost_server.observe.metrics import CATALOGUE

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
TOKEN = {"DEVHOST_ADMIN_TOKEN": "secret"}
MARGIN = 15.0
"""Seconds that a supervisor grants beyond the drain, at least: the last kill, and the last line of the log."""


def command(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=50, env={**os.environ, **(env or {})}
    )


def seconds(text: str) -> float:
    """`150`, `50s`, `2m30s`."""
    assert re.fullmatch(r"\d+|(\d+m)?(\d+s)?", text), text
    return sum(float(number) * {"m": 60, "s": 1, "": 1}[unit] for number, unit in re.findall(r"(\d+)([ms]?)", text))


def drain_of(settings: Settings) -> float:
    return settings.server.drain.delay + settings.server.drain.timeout


def settings(config_dir: Path, env: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DEVHOST_ADMIN_TOKEN", "secret")
    return load(Sources.from_options(env, str(config_dir), (), ())).settings


# --- systemd --------------------------------------------------------------------------------------------------------

UNIT = DEPLOY / "devhost-server.service"
PROGRAM = "/opt/devhost-server/bin/devhost-server"


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """Every assignment of the unit, the sections left aside: no key here is in two of them."""
    lines = [line for line in UNIT.read_text().splitlines() if line and line[0] not in "#["]
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """The unit as it would be where the program is installed: verify looks at the file that is to be started."""
    program = tmp_path / "devhost-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, str(program)))
    return copy


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: apt-get install systemd)"
)


@needs_systemd
def test_systemd_understands_every_line_of_the_unit(installed_unit: Path) -> None:
    done = command("systemd-analyze", "verify", str(installed_unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_verify_would_have_complained(installed_unit: Path) -> None:
    installed_unit.write_text(installed_unit.read_text().replace("KillMode=mixed", "KillMod=mixed"))
    assert "KillMod" in command("systemd-analyze", "verify", str(installed_unit)).stderr


@needs_systemd
def test_the_unit_is_hardened(installed_unit: Path) -> None:
    """Exposure is rated from 0 (nothing) to 10 (everything); 2 is the first step called OK."""
    done = command("systemd-analyze", "security", "--offline=true", "--threshold=20", str(installed_unit))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_unit_starts_and_reloads_with_verbs_that_exist(unit: dict[str, list[str]]) -> None:
    for key, verb in (("ExecStart", "run"), ("ExecReload", "reload")):
        program, *arguments = shlex.split(unit[key][0])
        assert (program, arguments) == (PROGRAM, [verb])
        assert command(sys.executable, "-m", "devhost_server", verb, "--help").returncode == 0


def test_the_unit_waits_longer_than_the_drain_of_its_environment(
    unit: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(assignment.split("=", 1) for assignment in unit["Environment"])
    staging = settings(ROOT / "config", environment["DEVHOST_ENV"], monkeypatch)
    assert drain_of(staging) + MARGIN < seconds(unit["TimeoutStopSec"][0]) < drain_of(staging) + 60


def test_the_unit_says_what_the_contract_says_of_signals_and_exit_codes(unit: dict[str, list[str]]) -> None:
    said = {key: unit[key] for key in ("Type", "NotifyAccess", "KillMode", "KillSignal", "Restart")}
    assert said == {
        "Type": ["notify"],
        "NotifyAccess": ["main"],
        "KillMode": ["mixed"],
        "KillSignal": ["SIGTERM"],
        "Restart": ["on-failure"],
    }
    assert unit["RestartPreventExitStatus"] == ["1 2"]


def test_the_unit_has_descriptors_for_every_connection_that_is_allowed(
    unit: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = settings(ROOT / "config", "staging", monkeypatch).server.limits.connections
    assert int(unit["LimitNOFILE"][0]) > 2 * allowed


# --- Docker ---------------------------------------------------------------------------------------------------------


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Every instruction with its arguments, continued lines joined and comments dropped."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(None, 1) for line in joined.splitlines()]
    return [(name, rest) for name, rest in pairs]


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, its FROM first."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions(DEPLOY / "Dockerfile"):
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


@pytest.fixture(scope="module")
def image(stages: list[list[tuple[str, str]]]) -> dict[str, str]:
    """The last word of the last stage on each matter."""
    return dict(stages[-1])


def test_the_dockerfile_uses_known_instructions_only(stages: list[list[tuple[str, str]]]) -> None:
    known = {
        "FROM",
        "WORKDIR",
        "ENV",
        "RUN",
        "COPY",
        "USER",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    assert {name for stage in stages for name, _ in stage} <= known


def test_what_builds_the_image_is_not_shipped(stages: list[list[tuple[str, str]]]) -> None:
    build, final = stages
    assert build[0][1].endswith(" AS build")
    assert re.fullmatch(r"python:3\.\d+-slim", final[0][1])
    assert build[0][1].split()[0] == final[0][1], "an environment is tied to the Python that made it"
    assert [rest for name, rest in final if name == "COPY"] == ["--from=build /opt/devhost-server /opt/devhost-server"]
    assert "pip install" not in " ".join(rest for _, rest in final)


def test_the_image_runs_as_nobody_in_particular(stages: list[list[tuple[str, str]]], image: dict[str, str]) -> None:
    uid, gid = image["USER"].split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    names = [name for name, _ in stages[-1]]
    assert "RUN" not in names[names.index("USER") :]
    assert f"--uid {uid} " in image["RUN"]


def test_the_image_is_stopped_by_a_drain(image: dict[str, str]) -> None:
    assert image["STOPSIGNAL"] == "SIGTERM"
    # Exec form: a shell in between would keep the signal for itself.
    assert json.loads(image["ENTRYPOINT"]) == ["devhost-server"]
    assert json.loads(image["CMD"]) == ["run"]


def test_everything_that_is_copied_exists_and_passes_the_dockerignore(stages: list[list[tuple[str, str]]]) -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for name, rest in stages[0] if name == "COPY" for source in rest.split()[:-1]}
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_through
    assert "*" in lines


def test_the_build_has_all_that_the_package_metadata_names(stages: list[list[tuple[str, str]]]) -> None:
    copied = " ".join(rest for name, rest in stages[0] if name == "COPY")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        assert file in copied


class Admin(BaseHTTPRequestHandler):
    """An admin listener that is ready or not."""

    ready = True

    def do_GET(self) -> None:
        self.send_response((200 if Admin.ready else 503) if self.path == "/readyz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def admin(*, ready: bool) -> Iterator[int]:
    Admin.ready = ready
    with ThreadingHTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def health_check(image: dict[str, str], port: int) -> int:
    """Run the HEALTHCHECK against another port, with a proxy in the environment that must not be asked."""
    options, _, check = image["HEALTHCHECK"].partition("CMD ")
    assert {option.partition("=")[0] for option in options.split()} == {
        "--interval",
        "--timeout",
        "--start-period",
        "--retries",
    }
    program, *arguments = json.loads(check)
    assert program == "python"
    assert sum("7778" in argument for argument in arguments) == 1
    arguments = [argument.replace("7778", str(port)) for argument in arguments]
    proxy = "http://127.0.0.1:1"
    return command(sys.executable, *arguments, env={"http_proxy": proxy, "HTTP_PROXY": proxy}).returncode


def test_the_health_check_passes_a_gateway_that_is_ready(image: dict[str, str]) -> None:
    with admin(ready=True) as port:
        assert health_check(image, port) == 0


def test_the_health_check_fails_while_draining_and_without_a_gateway(image: dict[str, str]) -> None:
    with admin(ready=False) as port:
        assert health_check(image, port) == 1
    assert health_check(image, port) == 1


def test_the_health_check_asks_where_the_admin_listener_is(image: dict[str, str], monkeypatch: Any) -> None:
    for config_dir, env in ((ROOT / "config", "staging"), (DEPLOY / "compose", "dev")):
        bind = settings(config_dir, env, monkeypatch).admin.bind
        assert bind is not None
        assert bind.rpartition(":")[2] == "7778"


# --- Compose --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the gateway of compose.yaml is configured to do."""
    return settings(DEPLOY / "compose", "dev", monkeypatch)


def test_compose_starts_the_gateway_and_two_apps_and_monitoring_only_when_asked(compose: Any) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["gateway", "shop", "api"]
    assert set(compose) <= {"name", "services", "volumes", "configs"}
    assert (DEPLOY / services["gateway"]["build"]["context"] / services["gateway"]["build"]["dockerfile"]).is_file()


def test_every_host_path_that_compose_mounts_exists(compose: Any) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", [])]
    for source, *_ in mounts:
        assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"], source
    assert all(rest[-1] == "ro" for source, *rest in mounts if source.startswith("."))


def test_the_configuration_that_compose_mounts_passes_the_check(compose: Any) -> None:
    assert "./compose:/etc/devhost-server:ro" in compose["services"]["gateway"]["volumes"]
    check = (sys.executable, "-m", "devhost_server", "check", "--config-dir", str(DEPLOY / "compose"))
    done = command(*check, env=TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DEVHOST_ADMIN_TOKEN" in compose["services"]["gateway"]["environment"]


def test_without_a_token_the_mounted_configuration_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVHOST_ADMIN_TOKEN", raising=False)
    done = command(sys.executable, "-m", "devhost_server", "check", "--config-dir", str(DEPLOY / "compose"))
    assert done.returncode == 1
    assert "the admin listener is not on loopback and needs one" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_routes_lead_to_services_on_the_ports_they_listen_on(compose: Any) -> None:
    services = compose["services"]
    document = yaml.safe_load((DEPLOY / "compose" / "devhost.yaml").read_text())
    targets = [document["routes"]["shop"]["to"], *document["upstreams"]["api"]["targets"]]
    for target in targets:
        name, port = re.fullmatch(r"http://(\w+):(\d+)", target).groups()  # type: ignore[union-attr]
        started = services[name].get("entrypoint") or services[name]["command"]
        assert any(re.fullmatch(rf"(.*:)?{port}", word) for word in started), started


def test_compose_publishes_the_admin_listener_to_this_machine_alone(compose: Any, composed: Settings) -> None:
    public, private = compose["services"]["gateway"]["ports"]
    assert public == "7777:7777"
    assert private == "127.0.0.1:7778:7778"
    assert composed.admin.token == "secret"


def test_compose_waits_longer_than_the_drain(compose: Any, composed: Settings) -> None:
    assert seconds(compose["services"]["gateway"]["stop_grace_period"]) > drain_of(composed) + MARGIN


@pytest.mark.parametrize("service", ["gateway", "shop", "api"])
def test_compose_takes_away_what_is_not_needed(compose: Any, service: str) -> None:
    given = compose["services"][service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]


# --- Prometheus -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    done = command("promtool", "check", "config", str(DEPLOY / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_the_gateway_of_compose(compose: Any, composed: Settings) -> None:
    [job] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    [static] = job["static_configs"]
    assert composed.admin.bind is not None
    assert static["targets"] == [f"gateway:{composed.admin.bind.rpartition(':')[2]}"]
    assert "gateway" in composed.admin.hosts, "else it is refused by that name"
    [mounted] = compose["services"]["prometheus"]["configs"]
    assert job["authorization"]["type"] == "Bearer"
    assert str(Path("/etc/prometheus") / job["authorization"]["credentials_file"]) == mounted["target"]
    assert compose["configs"][mounted["source"]] == {"environment": "DEVHOST_ADMIN_TOKEN"}
    assert "metrics_path" not in job, "the default is /metrics, as in the contract"
    assert "./prometheus.yml:/etc/prometheus/prometheus.yml:ro" in compose["services"]["prometheus"]["volumes"]


def test_every_alert_reads_metrics_and_labels_that_the_gateway_has(rules: list[dict[str, Any]]) -> None:
    labels = {metric.name: set(metric.labels) for metric in CATALOGUE}
    for rule in rules:
        read = re.findall(r"\b(devhost_[a-z_]+?)(?:_bucket|_count)?(?:\{([^}]*)\})?(?=[\[\s)]|$)", rule["expr"])
        assert read or "up{" in rule["expr"], rule["alert"]
        for name, selector in read:
            assert name in labels, f"{rule['alert']} reads {name}"
            assert set(re.findall(r"(\w+)[=!]", selector)) <= labels[name], f"{rule['alert']} selects by {selector}"


def test_every_alert_says_what_is_wrong_and_how_much_it_matters(rules: list[dict[str, Any]]) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description"}

"""The configuration that is delivered: what a team copies, and what is packaged."""

import re
from pathlib import Path

import pytest

from devhost_server.config import ConfigError, Sources, load
from devhost_server.config.layers import PACKAGED, gather
from devhost_server.config.models import Document
from devhost_server.config.schema import known_paths, model_of
from devhost_server.config.tree import find
from devhost_server.config.unbuilt import UNBUILT
from devhost_server.options import parse_bind

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config"
ENVIRONMENTS = ("dev", "staging", "prod")


def documented(env):
    """The variables that the head of an environment's file names; True for those it requires."""
    text = (FOLDER / f"devhost.{env}.yaml").read_text()
    return {name: "required" in rest for name, rest in re.findall(r"^#   (DEVHOST_\w+)  (.*)$", text, re.MULTILINE)}


def used(env):
    text = (FOLDER / f"devhost.{env}.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return set(re.findall(r"\$\{(DEVHOST_\w+)", "\n".join(lines)))


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "token").write_text("of-the-admin\n")
    return {
        "DEVHOST_DOMAIN": "apps.example",
        "DEVHOST_ADMIN_BIND": "0.0.0.0:7778",
        "DEVHOST_ADMIN_TOKEN": "of-the-admin",
        "DEVHOST_ADMIN_TOKEN_FILE": str(tmp_path / "token"),
        "DEVHOST_BIND": "0.0.0.0:8000",
        "DEVHOST_TRUSTED_PROXIES": "10.0.0.5, 10.0.1.0/24",
    }


def loaded(env, environ):
    return load(Sources.from_options(env=env, environ=environ, cwd=ROOT))


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_each_is_good_with_the_variables_it_documents(env, environ):
    given = {name: environ[name] for name in documented(env)}
    got = loaded(env, given)
    assert got.settings.env == env
    assert got.files == (FOLDER / "devhost.yaml", FOLDER / f"devhost.{env}.yaml")
    assert got.settings.routes


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_each_documents_the_variables_it_uses(env):
    assert set(documented(env)) == used(env)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_what_is_not_required_can_be_left_out(env, environ):
    required = {name for name, is_required in documented(env).items() if is_required}
    # The default of the token's file is a path of the machine that it will run on.
    given = {name: environ[name] for name in documented(env) if name in required or name == "DEVHOST_ADMIN_TOKEN_FILE"}
    assert loaded(env, given)
    for name in required:
        with pytest.raises(ConfigError, match=f"the variable {name} is not set"):
            loaded(env, {key: value for key, value in given.items() if key != name})


def test_dev_is_for_one_machine_and_has_something_to_talk_to():
    settings = loaded("dev", {}).settings
    assert all(parse_bind(bind).is_local for bind in settings.server.bind)
    assert settings.admin.token is None
    assert settings.echo is not None
    whoami = settings.routes["whoami"]
    assert whoami.hosts == ("whoami.localhost",)
    assert settings.upstreams[whoami.upstream].targets[0].url == f"http://{settings.echo.bind}"


def test_staging_is_for_a_team(environ):
    staging, dev = loaded("staging", environ).settings, loaded("dev", {}).settings
    assert all(parse_bind(bind).is_wildcard for bind in staging.server.bind)
    assert any(host.startswith("*.") for route in staging.routes.values() for host in route.hosts)
    assert staging.server.drain.timeout > dev.server.drain.timeout
    assert staging.server.drain.delay > 0


def test_staging_needs_nothing_and_then_keeps_its_admin_listener_to_this_machine():
    admin = loaded("staging", {}).settings.admin
    assert admin.bind is not None
    assert parse_bind(admin.bind).is_local
    assert admin.token is None


def test_the_admin_listener_of_staging_on_the_network_needs_a_token(environ):
    on_the_network = {"DEVHOST_ADMIN_BIND": environ["DEVHOST_ADMIN_BIND"]}
    for token in ({}, {"DEVHOST_ADMIN_TOKEN": ""}):
        with pytest.raises(ConfigError, match="reached from other machines, so `token` is required"):
            loaded("staging", on_the_network | token)
    admin = loaded("staging", on_the_network | {"DEVHOST_ADMIN_TOKEN": "#s3cret"}).settings.admin
    assert (admin.bind, admin.token) == ("0.0.0.0:7778", "#s3cret")


def test_prod_with_nothing_set_says_what_to_set():
    with pytest.raises(ConfigError) as caught:
        loaded("prod", {})
    domain, token = map(str, caught.value.problems)
    assert "the variable DEVHOST_DOMAIN is not set" in domain
    assert "set it to the domain whose names lead here" in domain
    assert token.endswith(
        "cannot be read: no such file or directory; set DEVHOST_ADMIN_TOKEN_FILE to name another file"
    )


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_nobody_is_believed_unless_named(env, environ):
    given = {name: value for name, value in environ.items() if name != "DEVHOST_TRUSTED_PROXIES"}
    assert loaded(env, given).settings.server.trusted_proxies == ()


@pytest.mark.parametrize(
    ("env", "paths"), [("dev", "pass"), ("test", "pass"), ("staging", "strict"), ("prod", "strict")]
)
def test_the_environment_decides_on_paths_where_nothing_is_said(env, paths, tmp_path):
    file = tmp_path / "only.yaml"
    file.write_text("routes: {web: 3000}\n")
    for sets in ([], ["server.paths=null"]):
        sources = Sources.from_options(env=env, config_files=[file], sets=sets, environ={}, cwd="/")
        assert load(sources).settings.server.paths == paths


@pytest.mark.parametrize(("env", "paths"), [("dev", "pass"), ("staging", "strict"), ("prod", "strict")])
def test_where_others_can_come_paths_are_strict(env, paths, environ):
    assert loaded(env, environ).settings.server.paths == paths


def test_targets_are_shown_to_strangers_everywhere_but_in_prod(environ):
    assert loaded("staging", environ).settings.routes["whoami"].details is True
    assert loaded("prod", environ).settings.routes["ping"].details == ("127.0.0.0/8", "::1/128")


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_a_variable_names_the_load_balancers(env, environ):
    assert loaded(env, environ).settings.server.trusted_proxies == ("10.0.0.5/32", "10.0.1.0/24")
    assert loaded(env, environ | {"DEVHOST_TRUSTED_PROXIES": ""}).settings.server.trusted_proxies == ()
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1/8.*did you mean '10\.0\.0\.0/8'"):
        loaded(env, environ | {"DEVHOST_TRUSTED_PROXIES": "10.0.0.5,10.0.0.1/8"})


def test_prod_leaves_no_decision_to_a_default(environ):
    tree = gather(Sources.from_options(env="prod", environ=environ, cwd=ROOT)).tree
    unbuilt = {feature.path for feature in UNBUILT}
    free = {("upstreams",), ("routes",), ("echo", "bind")}
    for path in known_paths():
        if path not in unbuilt | free:
            assert find(tree, path)[1] == path, f"{path} is not decided"


def test_prod_says_why_at_each_decision():
    lines = (FOLDER / "devhost.prod.yaml").read_text().splitlines()
    settings = [line for line in lines if re.match(r"\s*\w+: \S", line) and not line.lstrip().startswith("#")]
    explained = [
        line
        for line, before in zip(lines, ["", *lines], strict=False)
        if line in settings and ("#" in line or "#" in before)
    ]
    assert len(explained) >= 0.6 * len(settings)


def test_the_packaged_file_is_the_delivered_one():
    """It is there twice because a wheel has no `config/`, and a team edits its copy."""
    assert sorted(path.name for path in PACKAGED.iterdir()) == ["devhost.dev.yaml"]
    assert (PACKAGED / "devhost.dev.yaml").read_bytes() == (FOLDER / "devhost.dev.yaml").read_bytes()


def test_packaged_defaults_have_no_routes():
    """The lowest layer is the models' own defaults; the packaged file is only for where there is no other."""
    defaults = Document()
    assert not defaults.routes
    assert not defaults.upstreams
    assert defaults.echo is None
    assert model_of(Document.model_fields["echo"].annotation) is not None

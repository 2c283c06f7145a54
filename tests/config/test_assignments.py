"""Variables and `--set`: text as it is, everything else YAML of which nothing may get lost."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devhost_server.config import load
from devhost_server.config.show import in_effect, placer, to_yaml
from tests.config.support import loaded, problem, problems, sources, write


def test_variables_are_yaml_and_the_more_specific_wins(tmp_path):
    environ = {
        "DEVHOST__SERVER__LIMITS__BODY": "1KiB",
        "DEVHOST__SERVER": "{limits: {body: 2KiB, headers: 7}}",
        "DEVHOST__SERVER__BIND": "127.0.0.1:9",
        "DEVHOST__ROUTES__WEB": "3000",
        "DEVHOST__ROUTES__WEB__OWNER": "me",
        "DEVHOST__LOG__ACCESS": "",
    }
    settings = loaded(tmp_path, "log: {access: ./x.log}", environ=environ).settings
    assert (settings.server.limits.body, settings.server.limits.headers) == (1024, 7)
    assert settings.server.bind == ("127.0.0.1:9",)
    assert settings.routes["web"].owner == "me"
    assert settings.log.access is None


def test_problems_of_variables_and_sets_are_placed_there(tmp_path):
    environ = {"DEVHOST__SERVER__WORKERS": "[", "DEVHOST__LOG__LEVEL": "loud", "DEVHOST____X": "1"}
    found = problems(tmp_path, "", sets=("server.bind.0=1", "log.form=x", "a..b=1", "x"), environ=environ)
    by_place = {(problem.file, problem.key) for problem in found}
    assert by_place == {
        ("DEVHOST__SERVER__WORKERS", "server.workers"),
        ("DEVHOST__LOG__LEVEL", "log.level"),
        ("DEVHOST____X", ""),
        ("--set", "server.bind"),
        ("--set", "log.form"),
        ("--set", ""),
    }
    assert all(problem.line is None for problem in found)


def test_one_underscore_too_few_is_not_passed_over(tmp_path):
    (found,) = problems(tmp_path, "", environ={"DEVHOST_SERVER__WORKERS": "2", "DEVHOST_SERVICE_HOST": "kubernetes"})
    assert str(found) == (
        "DEVHOST_SERVER__WORKERS: not a variable this program reads; settings begin with DEVHOST__ "
        "(did you mean DEVHOST__SERVER__WORKERS?)"
    )


class TestMaxConns:
    TEXT = """
    defaults: {pool: {max_connections: 5}}
    upstreams:
      own: {targets: 1, pool: {max_connections: 6, max_idle: 1}}
      inherits: {targets: 2}
    routes: {web: 3}
    """

    def conns(self, tmp_path, **more):
        upstreams = loaded(tmp_path, self.TEXT, **more).settings.upstreams
        return {name: upstream.pool.max_connections for name, upstream in upstreams.items()}

    def test_it_is_for_every_upstream(self, tmp_path):
        assert self.conns(tmp_path) == {"own": 6, "inherits": 5, "web": 5}
        assert self.conns(tmp_path, environ={"DEVHOST_MAX_CONNS": "9"}) == {"own": 9, "inherits": 9, "web": 9}

    def test_the_longer_variable_and_sets_win(self, tmp_path):
        environ = {"DEVHOST_MAX_CONNS": "9", "DEVHOST__UPSTREAMS__OWN__POOL__MAX_CONNECTIONS": "10"}
        got = self.conns(tmp_path, environ=environ, sets=("upstreams.inherits.pool.max_connections=11",))
        assert got == {"own": 10, "inherits": 11, "web": 9}

    def test_its_origin_is_known(self, tmp_path):
        origins = loaded(tmp_path, self.TEXT, environ={"DEVHOST_MAX_CONNS": "9"}).origins
        assert origins["upstreams.own.pool.max_connections"].place == "DEVHOST_MAX_CONNS"
        assert origins["defaults.pool.max_connections"].place == "DEVHOST_MAX_CONNS"

    @pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "100001", "\u0663", "9" * 30])
    def test_it_is_a_number(self, tmp_path, value):
        (found,) = problems(tmp_path, self.TEXT, environ={"DEVHOST_MAX_CONNS": value})
        assert found.file == "DEVHOST_MAX_CONNS"
        assert "1 to 100000 is allowed" in found.message


# What YAML would make something else of, or nothing at all.
SURPRISING = (
    "#s3cret", "# s3cret", "null", "~", "123", "0123", "1.50", "true", "a: b", "[x", "{x", "x #y", "x#", "x #", "'x'",
    '"x"', "*x", "&x", "!x", "%x", "@x", "`x", "- x", "x:", "|", ">", "---", "pa$$word", "$x", "$$$$", "a=b", "\\n",
    "x, y", "? x", "<<", "=",
)  # fmt: skip
TEXTS = {
    "admin.token": lambda got: got.admin.token,
    "routes.web.owner": lambda got: got.routes["web"].owner,
    "routes.web.headers.x-team": lambda got: got.routes["web"].headers["x-team"],
    "routes.ping.respond.body": lambda got: got.routes["ping"].respond.body,
    "routes.ping.respond.content_type": lambda got: got.routes["ping"].respond.content_type,
}
ROUTES = "routes: {web: 3000, ping: {respond: {body: x}}}"


def assigned(key, value):
    """The three doors: a variable for the key, `--set`, and a variable that a file names."""
    *parents, last = key.split(".")
    file = f"{last}: '${{T}}'"
    for parent in reversed(parents):
        file = f"{parent}: {{{file}}}"
    return (
        ("", {"environ": {"DEVHOST__" + "__".join(key.upper().split(".")): value}}),
        ("", {"sets": (f"{key}={value}",)}),
        (file, {"environ": {"T": value}}),
    )


@pytest.mark.parametrize("value", SURPRISING)
@pytest.mark.parametrize("key", TEXTS)
def test_text_is_taken_as_it_is(tmp_path, key, value):
    for local, more in assigned(key, value):
        write(tmp_path, local, "devhost.local.yaml")
        if " " in value and key == "admin.token":
            assert "a token is at least one visible ASCII character" in problem(tmp_path, ROUTES, **more)
        else:
            assert TEXTS[key](loaded(tmp_path, ROUTES, **more).settings) == value


@pytest.mark.parametrize("value", ["", " ", "\n", "x\n", " x"])
def test_a_token_that_is_none_is_refused_and_not_left_out(tmp_path, value):
    for local, more in assigned("admin.token", value):
        write(tmp_path, local, "devhost.local.yaml")
        assert "a token is at least one visible ASCII character" in problem(tmp_path, "", **more)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).filter(lambda text: "${" not in text))
def test_any_token_is_the_token(tmp_path, token):
    for local, more in assigned("admin.token", token):
        write(tmp_path, local, "devhost.local.yaml")
        assert loaded(tmp_path, "", **more).settings.admin.token == token


def test_expressions_count_in_text_too(tmp_path):
    environ = {"DEVHOST__ADMIN__TOKEN": "${T}-$$", "T": "#x"}
    assert loaded(tmp_path, "", environ=environ).settings.admin.token == "#x-$"
    assert loaded(tmp_path, "", sets=("admin.token=$${T}",)).settings.admin.token == "${T}"
    assert "is not set" in problem(tmp_path, "", sets=("admin.token=${NOT_SET}",))


def test_the_file_itself_may_mean_null(tmp_path):
    text = "admin: {token: '${T:-null}'}"
    assert loaded(tmp_path, text).settings.admin.token is None
    assert loaded(tmp_path, text, environ={"T": "null"}).settings.admin.token == "null"
    assert loaded(tmp_path, "admin: {token: '${A:-${B}}'}", environ={"B": "null"}).settings.admin.token == "null"
    assert loaded(tmp_path, "admin: {token: '${A:-123}'}").settings.admin.token == "123"
    (tmp_path / "config" / "file").write_text("null\n")
    assert loaded(tmp_path, "admin: {token: '${file:file}'}").settings.admin.token == "null"
    assert loaded(tmp_path, "admin: {token: x}", sets=("admin={token: null}",)).settings.admin.token is None


@pytest.mark.parametrize(
    ("key", "value", "reads"),
    [
        ("admin.bind", "[::1]:7", "[::1]:7"),
        ("admin.bind", "'[::1]:7'", "[::1]:7"),
        ("admin.bind", '"[::1]:7"', "[::1]:7"),
        ("admin.bind", "null", None),
        ("admin.bind", "~", None),
        ("admin.bind", "", None),
        ("domain", "x.y", "x.y"),
        ("domain", "", "localhost"),
        ("log.access", "./#x", "./#x"),
        ("log.access", "./x #y", "./x #y"),
        ("log.access", "null", None),
        ("server.workers", "4", 4),
        ("server.workers", " 4 ", 4),
        ("server.limits.body", "", None),
        ("server.limits.body", "null", None),
        ("routes.web.path", "/a: b", "/a: b"),
        ("routes.web.upstream", "null", "web"),
    ],
)
def test_other_values(tmp_path, key, value, reads):
    for more in ({"sets": (f"{key}={value}",)}, {"environ": {"DEVHOST__" + key.upper().replace(".", "__"): value}}):
        got = loaded(tmp_path, ROUTES, **more).settings.model_dump()
        for part in key.split("."):
            got = got[part]
        assert got == reads


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("server.workers", "4 # comment", "the value is cut by YAML, which takes # and what follows it for a comment"),
        ("server.workers", "#4", "the value is cut by YAML"),
        ("server.workers", "4 #", "the value is cut by YAML"),
        ("server.workers", "# x\n4", "the value is cut by YAML"),
        ("server.bind", "[127.0.0.1:1] # x", "the value is cut by YAML"),
        ("server.bind", "[127.0.0.1:1, # x\n]", "the value is cut by YAML"),
        ("admin", "{token: x} # y", "the value is cut by YAML"),
        ("admin", "token: #s3cret", "the value is cut by YAML"),
        ("routes", "web: 3000\n# nothing\napi: 3001", "the value is cut by YAML"),
        ("routes.web", "http://127.0.0.1:1 #x", "the value is cut by YAML"),
        ("server.bind", "---", "the value is nothing to YAML, though it is not empty"),
        ("admin.bind", "127.0.0.1:1 # x", "is not an address to listen on"),
        ("admin.bind", "'127.0.0.1:1' # x", "the value is cut by YAML"),
        ("domain", "#x", "is not a host name"),
        ("routes.web.path", "/#x", "'/#x' is not a path"),
        ("log.level", "debug #", "the value is cut by YAML"),
        ("server.limits.body", "#1", "the value is cut by YAML"),
        ("nothing", "#1", "the value is cut by YAML"),
        ("server.bind", "[::1]:7", "put a text with special characters in quotes"),
    ],
)
def test_nothing_gets_lost_without_a_word(tmp_path, key, value, says):
    for more in ({"sets": (f"{key}={value}",)}, {"environ": {"DEVHOST__" + key.upper().replace(".", "__"): value}}):
        found = problem(tmp_path, ROUTES if key == "routes.web.path" else "", **more)
        assert f"{key}: " in found
        assert says in found
        assert "s3cret" not in found


def test_a_hash_within_quotes_or_a_word_is_no_comment(tmp_path):
    got = loaded(tmp_path, "", sets=("routes={a: {to: 'http://127.0.0.1:1', owner: 'x # y'}, b: {to: 1, owner: x#y}}",))
    assert [route.owner for route in got.settings.routes.values()] == ["x # y", "x#y"]


def test_an_origin_does_not_show_a_token_that_has_a_dollar_in_it(tmp_path):
    write(tmp_path, "")
    got = load(sources(tmp_path, environ={"DEVHOST__ADMIN__TOKEN": "pa$$word"}))
    assert "word" not in to_yaml({"admin": {"token": "*"}}, (), placer(got.origins))
    assert "pa$$word" in json.dumps(in_effect(got.tree))

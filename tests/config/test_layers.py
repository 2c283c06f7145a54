import pytest

from devhost_server.config import ConfigError, Sources, layers, load
from devhost_server.config.layers import PACKAGED, gather
from devhost_server.config.tree import plain
from tests.config.support import sources, write


def refused(made: Sources) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(made)
    return list(map(str, caught.value.problems))


@pytest.fixture(autouse=True)
def _no_system_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "SYSTEM", tmp_path / "etc")


def test_later_layers_win(tmp_path):
    write(tmp_path, "domain: base\nlog: {level: debug}\nserver: {workers: 1, drain: {timeout: 1s, delay: 1s}}\n")
    write(tmp_path, "domain: env\nserver: {drain: {timeout: 2s}}\n", "devhost.qa.yaml")
    write(tmp_path, "domain: local\n", "devhost.local.yaml")
    environ = {"DEVHOST_ENV": "qa", "DEVHOST__DOMAIN": "variable", "DEVHOST__SERVER__WORKERS": "4"}
    got = load(sources(tmp_path, sets=("domain=set", "server.workers=5", "server.workers=6"), environ=environ))
    assert got.settings.env == "qa"
    assert got.settings.domain == "set"
    assert got.settings.server.workers == 6
    assert (got.settings.server.drain.timeout, got.settings.server.drain.delay) == (2.0, 1.0)
    assert got.settings.log.level == "debug"
    assert [path.name for path in got.files] == ["devhost.yaml", "devhost.qa.yaml", "devhost.local.yaml"]
    assert load(sources(tmp_path, environ=environ)).settings.domain == "variable"
    assert load(sources(tmp_path, env="qa")).settings.domain == "local"


def test_every_value_keeps_its_origin(tmp_path):
    write(tmp_path, "domain: base\nserver:\n  workers: 1\n  bind: [127.0.0.1:1, '127.0.0.1:${PORT}']\n")
    write(tmp_path, "log: {level: debug}\n", "devhost.local.yaml")
    environ = {"DEVHOST__SERVER__WORKERS": "2", "PORT": "2"}
    origins = load(sources(tmp_path, sets=("admin.bind=null",), environ=environ)).origins
    assert {key: str(origin) for key, origin in origins.items()} == {
        "domain": "config/devhost.yaml:1:9",
        "server.workers": "DEVHOST__SERVER__WORKERS",
        "server.bind.0": "config/devhost.yaml:4:10",
        "server.bind.1": "config/devhost.yaml:4:23",
        "log.level": "config/devhost.local.yaml:1:14",
        "admin.bind": "--set",
    }
    assert origins["server.bind.1"].via == "127.0.0.1:${PORT}"


def test_without_any_folder_the_packaged_configuration_serves(tmp_path):
    got = load(sources(tmp_path))
    assert got.files == (PACKAGED / "devhost.dev.yaml",)
    assert list(got.settings.routes) == ["whoami"]


def test_a_folder_of_another_program_does_not_count(tmp_path):
    write(tmp_path, "not: ours", "webpack.yaml")
    assert load(sources(tmp_path)).files == (PACKAGED / "devhost.dev.yaml",)


def test_the_system_folder_counts_after_the_working_one(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "devhost.yaml").write_text("domain: system")
    assert load(sources(tmp_path)).settings.domain == "system"
    write(tmp_path, "domain: own")
    assert load(sources(tmp_path)).settings.domain == "own"


def test_the_folder_may_be_named(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "devhost.yaml").write_text("domain: there")
    write(tmp_path, "domain: here")
    by_variable = Sources.from_options(environ={"DEVHOST_CONFIG_DIR": "there"}, cwd=tmp_path)
    assert load(by_variable).settings.domain == "there"
    by_option = Sources.from_options(config_dir="there", environ={"DEVHOST_CONFIG_DIR": "nope"}, cwd=tmp_path)
    assert load(by_option).settings.domain == "there"


def test_a_named_folder_must_be_one_of_ours(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, says in (("nope", "there is no such folder"), ("empty", "holds no devhost.yaml")):
        (line,) = refused(Sources.from_options(config_dir=name, environ={}, cwd=tmp_path))
        assert line.startswith(f"{name}: ")
        assert says in line


def test_named_files_replace_the_search(tmp_path):
    write(tmp_path, "domain: searched")
    (tmp_path / "a.yaml").write_text("domain: a\nserver: {workers: 1}")
    (tmp_path / "b.yaml").write_text("domain: b")
    made = Sources.from_options(env="any", config_files=["a.yaml", tmp_path / "b.yaml"], environ={}, cwd=tmp_path)
    got = load(made)
    assert (got.settings.domain, got.settings.server.workers) == ("b", 1)
    assert got.files == (tmp_path / "a.yaml", tmp_path / "b.yaml")


def test_an_environment_needs_its_file_unless_it_is_dev(tmp_path):
    write(tmp_path, "domain: x")
    write(tmp_path, "domain: y", "devhost.prod.yaml")
    assert load(sources(tmp_path)).settings.env == "dev"
    (line,) = refused(sources(tmp_path, env="staging"))
    assert line == (
        "config/devhost.staging.yaml: there is no such file, and the environment is 'staging'; this folder has prod"
    )


def test_without_a_folder_another_environment_is_explained(tmp_path):
    (line,) = refused(sources(tmp_path, env="staging"))
    assert line.startswith("config/devhost.staging.yaml: there is no such file: the environment 'staging' needs")


@pytest.mark.parametrize("env", ["local", "../x", "a/b", "a b", "", "-x"])
def test_names_that_are_no_environment(tmp_path, env):
    write(tmp_path, "domain: x")
    made = sources(tmp_path, env=env)
    if not env:
        assert made.env == "dev"
        return
    (line,) = refused(made)
    assert line.startswith(f"environment: '{env}' is ")


def test_an_empty_variable_is_as_good_as_none(tmp_path):
    write(tmp_path, "domain: x")
    made = sources(tmp_path, environ={"DEVHOST_ENV": "", "DEVHOST_CONFIG_DIR": "", "DEVHOST_MAX_CONNS": ""})
    assert load(made).settings.env == "dev"


@pytest.mark.parametrize("name", ["devhost.yaml", "devhost.prod.yaml", "devhost.local.yaml"])
@pytest.mark.parametrize(("target", "says"), [("gone.yaml", "no such file"), (".", "is a directory"), ("", "too many")])
def test_a_layer_that_is_there_and_cannot_be_read_is_never_taken_for_absent(tmp_path, name, target, says):
    """A reload would drop every route of it without a word."""
    for layer in ("devhost.yaml", "devhost.prod.yaml", "devhost.local.yaml"):
        write(tmp_path, "domain: x", layer)
    path = tmp_path / "config" / name
    path.unlink()
    path.symlink_to(target or name)
    (line,) = refused(sources(tmp_path, env="prod"))
    assert line.startswith(f"config/{name}: cannot be read: {says}")


def test_a_folder_that_is_there_and_cannot_be_read_is_not_absent_either(tmp_path):
    (tmp_path / "config").symlink_to("config")
    (line,) = refused(sources(tmp_path))
    assert line.startswith("config: cannot be read: too many")
    (tmp_path / "config").unlink()
    (tmp_path / "config").symlink_to("gone")
    (line,) = refused(sources(tmp_path))
    assert line == "config: cannot be read: no such file or directory"
    (tmp_path / "config").unlink()
    (tmp_path / "config").write_text("another program's")
    assert load(sources(tmp_path)).settings.routes


def test_a_file_with_the_other_ending_is_not_passed_over(tmp_path):
    write(tmp_path, "domain: x", "devhost.yml")
    (line,) = refused(sources(tmp_path))
    assert line == "config/devhost.yml: this file would not be read; rename it to devhost.yaml"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "not UTF-8 text at byte 0"),
        (b"[]", "the file is not a mapping"),
        (b"text", "the file is not a mapping"),
        (b"a: [", "not valid YAML"),
        (b"#" * (4 * 1024 * 1024 + 1), "longer than 4MiB"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, says):
    write(tmp_path, "").write_bytes(content)
    (line,) = refused(sources(tmp_path))
    assert line.startswith("config/devhost.yaml")
    assert says in line


def test_a_file_that_is_a_folder_or_missing(tmp_path):
    (tmp_path / "x.yaml").mkdir()
    lines = refused(Sources.from_options(config_files=["x.yaml", "y.yaml"], environ={}, cwd=tmp_path))
    assert lines == ["x.yaml: cannot be read: is a directory", "y.yaml: cannot be read: no such file or directory"]


def test_empty_files_and_byte_order_marks(tmp_path):
    write(tmp_path, "")
    write(tmp_path, "\ufeffdomain: x", "devhost.dev.yaml")
    write(tmp_path, "# nothing yet\n", "devhost.local.yaml")
    assert load(sources(tmp_path)).settings.domain == "x"


def test_loading_the_same_sources_again_reads_the_files_anew(tmp_path):
    made = sources(tmp_path)
    write(tmp_path, "domain: one")
    assert load(made).settings.domain == "one"
    write(tmp_path, "domain: two")
    write(tmp_path, "log: {level: debug}", "devhost.local.yaml")
    assert (load(made).settings.domain, load(made).settings.log.level) == ("two", "debug")


def test_sources_do_not_show_their_environment(tmp_path):
    assert "hunter2" not in repr(sources(tmp_path, environ={"PASSWORD": "hunter2"}))


def test_layers_are_not_expanded_yet(tmp_path):
    write(tmp_path, "domain: ${NOPE}")
    assert plain(gather(sources(tmp_path)).tree) == {"domain": "${NOPE}"}


class TestFilesNamedOneByOne:
    FIRST = "upstreams: {api: {targets: 1}}\nroutes:\n  web: 3000\n  api: {upstream: api}\n"

    def load(self, tmp_path, *texts, **more):
        files = []
        for number, text in enumerate(texts):
            files.append(tmp_path / f"{number}.yaml")
            files[-1].write_text(text)
        return load(Sources.from_options(config_files=files, environ={}, cwd=tmp_path, **more)).settings

    def refused(self, tmp_path, *texts):
        with pytest.raises(ConfigError) as caught:
            self.load(tmp_path, *texts)
        return list(map(str, caught.value.problems))

    @pytest.mark.parametrize("entry", ["3001", "{to: 3001}", "{owner: me}", "{to: 1, override: false}"])
    def test_a_name_that_two_define_is_an_error_that_names_both(self, tmp_path, entry):
        (line,) = self.refused(tmp_path, self.FIRST, f"routes:\n\n  web: {entry}\n")
        assert line == (
            "1.yaml:3:3: routes.web: the route web is defined in 0.yaml:3:3 already: write `override: true` in this "
            "one if it is meant to change that one, or rename one"
        )

    def test_upstreams_too_and_each_once(self, tmp_path):
        lines = self.refused(tmp_path, self.FIRST, "upstreams: {api: {targets: 2}}", "upstreams: {api: {targets: 3}}")
        assert [line.split(": the upstream api is defined in ")[0] for line in lines] == [
            "1.yaml:1:13: upstreams.api",
            "2.yaml:1:13: upstreams.api",
        ]
        assert "1.yaml:1:13 already" in lines[1]

    def test_the_later_may_say_that_it_is_meant(self, tmp_path):
        over = "upstreams: {api: {pass_host: false, override: true}}\nroutes: {web: {owner: me, override: true}}"
        got = self.load(tmp_path, self.FIRST, over)
        assert got.upstreams["api"].pass_host is False
        assert got.upstreams["web"].targets[0].url == "http://127.0.0.1:3000"
        assert got.routes["web"].owner == "me"
        assert "override" not in got.model_dump_json()

    def test_null_says_what_it_means(self, tmp_path):
        got = self.load(tmp_path, self.FIRST, "routes: {web: null}")
        assert "web" not in got.routes
        assert self.load(tmp_path, self.FIRST, "routes: {web: null}", "routes: {web: 3001}").routes["web"]

    def test_the_same_file_twice_is_twice_defined(self, tmp_path):
        assert len(self.refused(tmp_path, self.FIRST, self.FIRST)) == 3

    def test_other_sections_merge_and_other_layers_override(self, tmp_path):
        got = self.load(
            tmp_path, self.FIRST, "log: {level: debug}", "log: {level: error}", sets=("routes.web.owner=me",)
        )
        assert (got.log.level, got.routes["web"].owner) == ("error", "me")
        write(tmp_path, self.FIRST)
        write(tmp_path, "routes: {web: 3001}", "devhost.dev.yaml")
        write(tmp_path, "routes: {web: {owner: me}}", "devhost.local.yaml")
        assert load(sources(tmp_path)).settings.routes["web"].owner == "me"

    def test_override_is_true_or_false(self, tmp_path):
        (line,) = self.refused(tmp_path, self.FIRST, "routes: {web: {override: maybe}}")
        assert "'maybe' is not true or false" in line

"""Where the configuration is read from when the working directory is gone."""

import pytest

from tests.cli.support import run, write


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

"""Which gateway is asked, with which token, and what is made of its answers."""

import socket
from pathlib import Path

import pytest

from tests.cli.support import run, write
from tests.support import refusing_port


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


def test_a_gateway_that_does_not_answer(monkeypatch):
    monkeypatch.setattr("devhost_server.cli.running_gateway.READ_TIMEOUT", 0.2)
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


def test_no_admin_listener():
    write("admin: {bind: null}")
    assert "admin.bind is null" in run("status", code=1).stderr


def test_a_wrong_admin_section_is_said():
    write("admin: {bind: 0.0.0.0:1}")
    assert "admin.bind" in run("status", code=1).stderr

import pytest

from devhost_server.options import (
    Bind,
    Options,
    field_value,
    header_fields,
    host_name,
    host_pattern,
    one_line,
    parse_bind,
    socket_path,
)


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:7777", Bind("127.0.0.1", 7777)),
        ("0.0.0.0:0", Bind("0.0.0.0", 0)),
        ("[::1]:80", Bind("::1", 80)),
        ("[0:0:0:0:0:0:0:1]:80", Bind("::1", 80)),
        ("LocalHost:1", Bind("localhost", 1)),
        ("unix:/run/x.sock", Bind(path="/run/x.sock")),
        ("unix:///run/x.sock", Bind(path="/run/x.sock")),
    ],
)
def test_addresses_to_listen_on(text, bind):
    assert parse_bind(text) == bind
    assert parse_bind(str(bind)) == bind


@pytest.mark.parametrize(
    "text",
    [
        *("", "7777", ":7777", "127.0.0.1", "127.0.0.1:", "::1:80", "[127.0.0.1]:80", "256.0.0.1:80", "http://h:1"),
        *("a b:1", "h:65536", "h:-1", "h:\u0661", "h:1\n"),
        *("unix:", "unix:x.sock", "unix:/", "unix:/" + "x" * 108, "unix:/a\nb"),
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"write |is too long"):
        parse_bind(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.10:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.com:1", False),
    ],
)
def test_only_loopback_and_sockets_are_local(text, local):
    assert parse_bind(text).is_local is local


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("[::]:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:1", False),
    ],
)
def test_addresses_that_cannot_be_bound_at_once(a, b, both):
    assert parse_bind(a).collides(parse_bind(b)) is both
    assert parse_bind(b).collides(parse_bind(a)) is both


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Api.Localhost", "api.localhost"),
        ("api.localhost.", "api.localhost"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_app.localhost", "my_app.localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0::1]", "[::1]"),
    ],
)
def test_host_names_have_one_form(text, name):
    assert host_name(text) == name
    assert host_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a",
        "a-",
        "a b",
        "a/b",
        "a:1",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "1.2.3",
        "[1.2.3.4]",
        "ü" * 70,
    ],
)
def test_what_is_no_host_name_is_refused(text):
    with pytest.raises(ValueError, match="is not a"):
        host_name(text)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("*", "*"), ("*.Preview.localhost", "*.preview.localhost"), ("**.localhost.", "**.localhost"), ("a.b", "a.b")],
)
def test_host_patterns(text, pattern):
    assert host_pattern(text) == pattern


@pytest.mark.parametrize(
    "text", ["*x", "a.*", "*.*.b", "***.b", "*.", "**", "http://a", "a/b", "a:80", "[::1]:80", "*.[::1]x"]
)
def test_what_is_no_host_pattern_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a|has a port"):
        host_pattern(text)


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0", " a", "a ", "\x7f", "\u0100", "a\tb\n"])
def test_header_values_cannot_inject(value):
    with pytest.raises(ValueError, match="is not a header value"):
        field_value(value)


@pytest.mark.parametrize("value", ["", "a", "a b\tc", "\xe9", "a" * 5000])
def test_header_values(value):
    assert field_value(value) == value


def test_header_names_are_compared_without_case():
    assert header_fields({"X-Team": "blue"}) == {"x-team": "blue"}
    with pytest.raises(ValueError, match="given twice"):
        header_fields({"X-Team": "blue", "x-team": "red"})
    for name in ("", "a b", "a:", "a\n", "é"):
        with pytest.raises(ValueError, match="is not a header name"):
            header_fields({name: ""})


@pytest.mark.parametrize("text", ["", "a\nb", "\x1b[31m"])
def test_a_line_is_one_line(text):
    with pytest.raises(ValueError, match="is not a line"):
        one_line(text)


def test_socket_paths_are_absolute():
    assert socket_path("unix:/a") == "/a"
    with pytest.raises(ValueError, match="absolute path"):
        socket_path("unix:a")


class Sample(Options):
    count: int = 3
    name: str | None = "x"


def test_null_is_the_default_where_it_is_no_value():
    assert Sample.model_validate({"count": None, "name": None}) == Sample(count=3, name=None)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("http://a.b:80/x", "a.b"), ("https://*.a.b", "*.a.b"), ("a.b/x", "a.b"), ("*.a/x", "*.a"), ("/x", None)],
)
def test_a_host_that_is_a_url_leads_to_its_host(text, hint):
    with pytest.raises(ValueError, match=r"is not a host alone: scheme and path are no part of it") as caught:
        host_pattern(text)
    assert str(caught.value).endswith(f"(did you mean '{hint}'?)" if hint else "no part of it")


def test_a_star_stands_for_labels_at_the_beginning_alone():
    for text in ("*.x.*", "x.*.y", "*x.y", "x.*"):
        with pytest.raises(ValueError, match=r"write a name, \*\.name \(one label more\), \*\*\.name"):
            host_pattern(text)

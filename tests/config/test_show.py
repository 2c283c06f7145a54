from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.config import Origin, Settings, load
from devhost_server.config.expand import expand
from devhost_server.config.layers import gather
from devhost_server.config.reader import read
from devhost_server.config.show import differences, flat, in_effect, placer, scalar, select, to_yaml
from devhost_server.config.tree import plain
from devhost_server.secrecy import MASK, masked
from tests.config.support import loaded, sources, write


def shown(got):
    return masked(in_effect(got.tree), got.secrets)


def reread(text):
    return plain(read(text, lambda line, column: Origin("shown", line, column)))


def test_defaults_are_filled_in_and_written_as_people_do(tmp_path):
    got = in_effect(loaded(tmp_path, "server: {limits: {body: 5MB}}\nroutes: {web: 3000}").tree)
    assert got["server"]["limits"] == {
        "head": "64KiB",
        "headers": 128,
        "target": "16KiB",
        "body": "5MB",
        "connections": 10000,
        "connections_per_client": None,
        "in_flight_per_client": None,
    }
    assert got["server"]["timeouts"]["head"] == "10s"
    assert got["admin"] == {"bind": "127.0.0.1:7778", "hosts": [], "token": None, "tokens": {}}
    assert got["echo"] is None
    assert got["routes"] == {"web": 3000}
    assert "watch" not in got["server"]
    assert list(got) == ["server", "log", "admin", "domain", "echo", "defaults", "upstreams", "routes"]


def test_null_is_shown_as_what_it_comes_to(tmp_path):
    got = in_effect(
        loaded(tmp_path, "server: {workers: null}\nlog: {access: null}\nroutes: {a: null}\nadmin: null").tree
    )
    assert got["server"]["workers"] == "auto"
    assert got["log"]["access"] is None
    assert got["admin"]["bind"] == "127.0.0.1:7778"
    assert got["routes"] == {}


def test_what_is_shown_loads_to_the_same_settings(tmp_path):
    text = """
        domain: ${D}
        upstreams: {api: {targets: [1, {url: "http://x", weight: 2}], pool: {wait: 1s}}}
        routes:
          a: {upstream: api, headers: {x-a: "a: ${D} #", x-b: "$${no}"}, methods: [GET], owner: "# \\u1234 '\\""}
          b: {respond: {body: "l1\\nl2 \\U0001F600 $$x $${y} \\x7f"}, host: ["*", "**.x"]}
    """
    first = loaded(tmp_path, text, environ={"D": "d.e"})
    again = tmp_path / "again"
    again.mkdir()
    second = loaded(again, to_yaml(in_effect(first.tree)))
    assert second.settings == first.settings


def test_secrets_are_masked(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "x").write_text("fromfile")
    got = loaded(
        tmp_path,
        """
        admin: {token: literal1}
        domain: ${file:x}
        routes:
          a: {to: 1, headers: {authorization: literal2, x-api-token: literal3, x-plain: seen}}
          b: {to: ["http://${file:x}/"]}
        """,
    )
    text = to_yaml(shown(got), origin=placer(got.origins))
    assert "literal" not in text
    assert "fromfile" not in text
    assert "seen" in text
    assert text.count("********") == 5
    assert "from ${file:x}" in text


def test_settings_are_shown_without_what_came_out_of_files(tmp_path):
    """Wherever resolving moves it: a host, a default, a target, a header in lower case."""
    (tmp_path / "config").mkdir()
    for name, content in {"x": "fromfile", "u": "http://fromfile", "n": "7"}.items():
        (tmp_path / "config" / name).write_text(content)
    got = loaded(
        tmp_path,
        """
        server: {trusted_proxies: "10.0.0.${file:n}", workers: "${file:n}"}
        domain: ${file:x}.net
        defaults: {timeouts: {connect: "${file:n}"}}
        upstreams: {up: {targets: [http://plain, "${file:u}/a"]}, one: {targets: "${file:u}"}}
        routes:
          a: {to: 1, headers: {X-Key: "${file:x}", x-plain: seen}, path: "/${file:x}", methods: "${file:x}"}
          b: {to: {url: "${file:u}", weight: 3}, host: "${file:x}"}
          c: ${file:u}
          d: {respond: {body: "a ${file:x}", headers: {X-D: "${file:x}"}}, owner: "${file:x}", host: d}
        """,
    )
    assert got.settings.routes["a"].headers["x-key"] == "fromfile"
    shown = got.settings.shown()
    assert "fromfile" not in str(shown)
    assert "FROMFILE" not in str(shown)
    assert shown["server"]["trusted_proxies"] == [MASK]
    assert shown["server"]["workers"] == MASK
    assert shown["upstreams"]["up"]["targets"] == [
        {"url": "http://plain", "weight": 1},
        {"url": MASK, "weight": 1},
    ]
    assert shown["upstreams"]["b"]["targets"] == [{"url": MASK, "weight": 3}]
    assert {each["timeouts"]["connect"] for each in shown["upstreams"].values()} == {MASK}
    assert shown["routes"]["a"]["headers"] == {"x-key": MASK, "x-plain": "seen"}
    assert shown["routes"]["d"]["hosts"] == ["d"]
    assert Settings.model_validate(got.settings.model_dump(mode="json")) == got.settings


def test_no_token_is_no_secret(tmp_path):
    assert shown(loaded(tmp_path, "admin: {token: null}"))["admin"]["token"] is None


def test_origins_stand_beside_values(tmp_path):
    write(tmp_path, "server: {bind: ['127.0.0.1:${P}']}\nroutes: {a: {to: [{url: 'http://x'}, 2]}}")
    got = load(sources(tmp_path, sets=("log.level=debug",), environ={"P": "1", "DEVHOST__LOG__FORMAT": "json"}))
    lines = to_yaml(shown(got), origin=placer(got.origins)).splitlines()
    origins = {line.partition("#")[0].strip(): line.partition("# ")[2] for line in lines}
    assert origins["bind: [127.0.0.1:1]"] == "config/devhost.yaml:1:17, from 127.0.0.1:${P}"
    assert origins["level: debug"] == "--set"
    assert origins["format: json"] == "DEVHOST__LOG__FORMAT"
    assert origins["workers: auto"] == "default"
    assert origins["- url: http://x"] == "config/devhost.yaml:2:25"
    assert origins["- 2"] == "config/devhost.yaml:2:38"
    assert origins["server:"] == ""


def test_parts_can_be_selected(tmp_path):
    got = in_effect(loaded(tmp_path, "upstreams: {a: {targets: [1, 2]}}").tree)
    assert select(got, "server.workers") == "auto"
    assert select(got, "upstreams.a.targets.1") == 2
    for key in ("upstreams.a.targets.2", "domain.x"):
        with pytest.raises(KeyError):
            select(got, key)
    with pytest.raises(KeyError) as caught:
        select(got, "server.x")
    assert caught.value.args == ("x", list(got["server"]))


def test_environments_are_compared_as_written(tmp_path):
    write(tmp_path, "domain: base\nserver: {bind: [127.0.0.1:1]}")
    write(tmp_path, "admin: {token: '${T:?}'}\nserver: {workers: 2}\nlog: {level: info}", "devhost.a.yaml")
    write(tmp_path, "admin: {token: plain}\nroutes: {web: 1}\nserver: {bind: [127.0.0.1:2]}", "devhost.b.yaml")
    made = sources(tmp_path)
    found = differences(gather(replace(made, env="a")), gather(replace(made, env="b")))
    assert found == [
        ("server.bind", ["127.0.0.1:1"], ["127.0.0.1:2"]),
        ("server.workers", 2, "auto"),
        ("admin.token", "${T:?}", "********"),
        ("routes", {}, "(none)"),
        ("routes.web", "(none)", 1),
    ]


TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20) | st.text(
    "${}:#-'\" ,[]*&!09e.", max_size=8
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(lambda key: key != "<<"), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(TEXT.filter(lambda key: key != "<<"), VALUES, max_size=4))
def test_anything_written_reads_back(value):
    def expanded(node):
        if isinstance(node, dict):
            return {key: expanded(child) for key, child in node.items()}
        if isinstance(node, list):
            return [expanded(child) for child in node]
        return expand(node, {}, None).text if isinstance(node, str) else node

    assert expanded(reread(to_yaml(value))) == value


def test_words_that_other_readers_would_type_are_quoted():
    for word in (
        "no",
        "on",
        "1:30",
        "012",
        "0x1F",
        "2026-11-21",
        "null",
        "~",
        "1_000",
        "",
        " x",
        "a: b",
        "a #b",
        "<<",
        "=",
    ):
        assert scalar(word).startswith('"')
    for word in ("round_robin", "127.0.0.1:7777", "http://a/b", "64KiB", "10s", "stdout"):
        assert scalar(word) == word


def test_flat_takes_lists_of_scalars_as_one():
    assert list(flat({"a": {"b": [1, 2], "c": {}}, "d": [{"e": 1}]})) == [
        (("a", "b"), [1, 2]),
        (("a", "c"), {}),
        (("d", 0, "e"), 1),
    ]

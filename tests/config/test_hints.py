"""Whatever a sentence suggests or calls allowed is accepted by whoever does as it says."""

import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.config import ConfigError, Sources, load
from devhost_server.config.hints import allowed_keys
from devhost_server.config.models import RouteSection, entry_name, network, route_path
from devhost_server.config.schema import default_of, known_paths, model_at
from devhost_server.config.unbuilt import UNBUILT, is_unbuilt
from devhost_server.messages.options import FixedAnswer
from devhost_server.options import host_pattern, parse_bind
from devhost_server.upstream.options import UpstreamOptions, target_url

BASE = {
    "upstreams": {"app": {"targets": [{"url": "http://127.0.0.1:1"}]}},
    "routes": {
        "to": {"to": {"url": "http://127.0.0.1:2"}},
        "named": {"upstream": "app"},
        "fixed": {"respond": {"status": 200}},
    },
}
PLACES = (
    *((), ("server",), ("server", "limits"), ("server", "timeouts"), ("server", "drain"), ("log",), ("admin",)),
    *(("echo",), ("defaults",), ("defaults", "timeouts"), ("defaults", "pool"), ("defaults", "retries")),
    *(("upstreams", "app", *rest) for rest in ((), ("timeouts",), ("pool",), ("retries",), ("targets", 0))),
    *(("routes", "to", *rest) for rest in ((), ("timeouts",), ("pool",), ("to",))),
    *(("routes", "named", *rest) for rest in ((), ("timeouts",))),
    *(("routes", "fixed", *rest) for rest in ((), ("respond",))),
)
# Values by key, for those whose default is none; the last word of a path is enough to know what fits.
VALUES = {
    "bind": "127.0.0.1:9", "token": "x", "body": "x", "host": "a.b", "to": 3, "upstream": "app", "owner": "me",
    "respond": {}, "headers": {"x-a": "b"}, "methods": "GET", "path": "/x", "targets": 4, "url": "http://127.0.0.1:5",
    "server": {}, "log": {}, "admin": {}, "echo": {}, "defaults": {}, "upstreams": {}, "routes": {}, "domain": "a.b",
    "limits": {}, "timeouts": {}, "drain": {}, "pool": {}, "retries": {}, "trusted_proxies": "10.0.0.0/8",
    "content_type": "a/b", "access": "./x", "level": "info", "format": "json", "balance": "round_robin",
    "strip_prefix": True, "pass_host": True, "workers": 2, "status": 200,
    "weight": 2, "attempts": 3, "budget_percent": 5, "trusted_headers": "X-Forwarded-User", "paths": "strict",
    "details": False, "slash": None, "buffer_body": "1MiB",
}  # fmt: skip
HINT = re.compile(r"\(did you mean ([^?']+)\?\)")
ALLOWED = re.compile(r"unknown key; allowed: ([a-z_, ]+)")


def value_of(place, key):
    if (*place[-1:], key) in {("limits", "body"), ("limits", "headers"), ("timeouts", "body")}:
        return 100
    return VALUES[key] if key in VALUES else default_of(model_of(place).model_fields[key])


def changed(document, place, key, value):
    document = copy.deepcopy(document)
    inner = document
    for part in place:
        inner = inner[part] if isinstance(inner, list) else inner.setdefault(part, {})
    inner[key] = value
    return document


def wrong(tmp_path, document):
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(document))
    try:
        load(Sources.from_options(config_files=[file], environ={}, cwd=tmp_path))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def tried(tmp_path, place, key, value):
    """Put a key where it is none and do what is said then; returns what was suggested."""
    messages = wrong(tmp_path, changed(BASE, place, key, value))
    about = [message for message in messages if "unknown key" in message]
    assert len(about) == 1, messages
    others = [message for message in messages if message not in about]
    found = HINT.search(about[0])
    for word in found[1].split(" or ") if found else ():
        new = tuple(word.split(".")) if "." in word else (word,)
        if "." not in word:
            new = (*place, word) if " at the top level" not in word else (word.removesuffix(" at the top level"),)
        after = wrong(tmp_path, changed(BASE, new[:-1], new[-1], value))
        assert set(map(stripped, after)) <= set(map(stripped, others)), (about, after)
    return found[1] if found else None


def stripped(message):
    return re.sub(r":\d+:\d+: ", " ", message)


def model_of(place):
    return model_at((*place, 0) if place[:1] == ("routes",) and place[2:] == ("to",) else place)


def keys_at(place):
    return [key for key in model_of(place).model_fields if not is_unbuilt((*place, key))]


def misspelled(key):
    return (key[:-1], key + "s", key[:2] + key[3:], key[1] + key[0] + key[2:], key.replace("_", "-"))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)) or "top")
def test_a_misspelled_key(tmp_path, place):
    heard = 0
    for key in keys_at(place):
        for wrongly in {*misspelled(key)} - {"", *model_of(place).model_fields}:
            if not is_unbuilt((*place, wrongly)):
                heard += tried(tmp_path, place, wrongly, value_of(place, key)) is not None
    assert heard


# An ordinary run tries every third key, at each place others.
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)) or "top")
def test_a_key_of_another_place(tmp_path, place, step):
    known = model_of(place).model_fields
    others = {(key, json.dumps(value_of(other, key))) for other in PLACES for key in keys_at(other)}
    for key, value in sorted(others)[PLACES.index(place) % step :: step]:
        if key not in known and not is_unbuilt((*place, key)):
            tried(tmp_path, place, key, json.loads(value))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)) or "top")
def test_what_is_called_allowed_is_accepted(tmp_path, place):
    (message,) = wrong(tmp_path, changed(BASE, place, "zzz", 1))
    allowed = ALLOWED.search(message)[1].split(", ")
    assert not any(is_unbuilt((*place, key)) for key in allowed)
    for key in allowed:
        below = BASE
        for part in place:
            below = below[part] if isinstance(below, list) else below.get(part, {})
        if key not in below:
            assert wrong(tmp_path, changed(BASE, place, key, value_of(place, key))) == []


@pytest.mark.parametrize(
    ("place", "key", "value", "says"),
    [
        (("routes", "to"), "timeout", "5s", "(did you mean timeouts? It is a mapping, of connect, "),
        (("routes", "to"), "response", "5s", "(did you mean routes.to.timeouts.response?)"),
        (("routes", "named"), "response", "5s", "(did you mean routes.named.timeouts.response?)"),
        (("routes", "to"), "max_connections", 5, "(did you mean routes.to.pool.max_connections?)"),
        (("routes", "to", "timeouts"), "max_idle", 5, "(did you mean routes.to.pool.max_idle?)"),
        (("upstreams", "app"), "attempts", 5, "(did you mean upstreams.app.retries.attempts?)"),
        (("server",), "timeout", "5s", "(did you mean server.drain.timeout?)"),
        (("server",), "head", "5s", "(did you mean server.timeouts.head?)"),
        (("server",), "head", "64KiB", "(did you mean server.limits.head?)"),
        (("server", "limits"), "body_idle", "5s", "(did you mean server.timeouts.body_idle?)"),
        (("server", "timeouts"), "response", "5s", "(did you mean defaults.timeouts.response?)"),
        (("server",), "domain", "a.b", "(did you mean domain at the top level?)"),
        ((), "timeouts", {"response": "5s"}, "(did you mean defaults.timeouts?)"),
        ((), "timeouts", {"head": "5s"}, "(did you mean server.timeouts?)"),
    ],
)
def test_the_nearest_place_is_meant(tmp_path, place, key, value, says):
    assert says in wrong(tmp_path, changed(BASE, place, key, value))[0]


@pytest.mark.parametrize(("place", "key"), [(("routes", "to"), "token"), (("log",), "tokens")])
def test_nothing_is_suggested_where_nothing_is_near(tmp_path, place, key):
    assert "did you mean" not in wrong(tmp_path, changed(BASE, place, key, "x"))[0]


def test_an_option_of_an_upstream_leads_to_it(tmp_path):
    (message,) = wrong(tmp_path, changed(BASE, ("routes", "named"), "pool", {"max_idle": 1}))
    assert message.endswith("`pool` belongs to the upstream, which others use too: write it under upstreams.app")
    assert wrong(tmp_path, changed(BASE, ("upstreams", "app"), "pool", {"max_idle": 1})) == []
    (message,) = wrong(tmp_path, changed(BASE, ("routes", "fixed"), "timeouts", {"response": 1}))
    assert message.endswith("`timeouts` is about an upstream, and this route answers by itself: remove it")


def test_many_mistakes_are_said_at_once(tmp_path):
    document = {"routes": {f"r{number}": {"to": 1, "ownr": "x"} for number in range(500)}}
    messages = wrong(tmp_path, document)
    assert len(messages) >= 500
    assert "did you mean owner?" in messages[0]


def test_no_key_that_works_is_among_those_that_are_not_built():
    """Placeholders that take only what asks for nothing are fine; a real option would never be seen."""
    for feature in UNBUILT:
        *parents, key = ("x" if part == "*" else part for part in feature.path)
        model = model_at(tuple(parents))
        field = model.model_fields.get(key)
        assert field is None or "not built in this version" in field.description.lower(), feature.path
        assert key not in allowed_keys(tuple(parents))


def test_every_section_is_tried():
    sections = {path[:-1] for path in known_paths()} | {("upstreams",), ("routes",)}
    assert {path for path in sections if path not in (("upstreams",), ("routes",))} <= set(PLACES)
    assert UpstreamOptions.model_fields.keys() - {"targets"} <= RouteSection.model_fields.keys()
    assert model_at(("routes", "x", "respond")) is FixedAnswer


@pytest.mark.parametrize(
    ("path", "bound", "over"),
    [
        (("server", "limits", "connections"), 1_000_000, 1_000_001),
        (("server", "limits", "connections"), 1, 0),
        (("server", "limits", "head"), 1024, "1000B"),
        (("defaults", "retries", "budget_percent"), 100, 101),
    ],
)
def test_a_bound_is_written_so_that_it_can_be_given(tmp_path, path, bound, over):
    (message,) = wrong(tmp_path, changed({}, path[:-1], path[-1], over))
    said = re.search(r"at (?:least|most) (\S+) is allowed", message)[1]
    assert json.loads(said) == bound
    assert wrong(tmp_path, changed({}, path[:-1], path[-1], json.loads(said))) == []


SHAPE = r"(https?|wss?|unix|\*|\*\*)?[:./]{0,3}[a-zA-Z0-9.-]{0,8}(:[0-9]{0,6}){0,3}(/[a-z.{}*%0-9]{0,5}){0,3}"
TEXTS = (
    st.text(max_size=90)
    | st.text("abcAB:/.*[]@-_0123456789%{} ?#é", max_size=30)
    | st.from_regex(SHAPE, fullmatch=True)
)
PARSERS = {
    "target": target_url, "host": host_pattern, "path": route_path, "name": entry_name, "network": network,
    "address": parse_bind,
}  # fmt: skip


@pytest.mark.parametrize("kind", PARSERS)
@given(text=TEXTS)
def test_a_value_that_is_suggested_is_accepted(kind, text):
    parse = PARSERS[kind]
    try:
        parse(text)
    except ValueError as error:
        found = re.search(r"\(did you mean '(.*)'\?\)", str(error))
        if found:
            parse(found[1])


@pytest.mark.parametrize(
    ("kind", "text", "hint"),
    [
        ("target", "ws://a:1/x", "http://a:1/x"),
        ("target", "ws://", None),
        ("target", "a:99999", None),
        ("target", "a:1", "http://a:1"),
        ("host", "a b:80", None),
        ("host", "a:80:80", "a"),
        ("host", "a" + ":1" * 5000, "a"),
        ("path", "v1", "/v1"),
        ("path", "..", None),
        ("name", "A b", "a-b"),
        ("name", "é", None),
        ("name", "x" * 62 + "-y", "x" * 62),
        ("network", "10.0.0.1/8", "10.0.0.0/8"),
    ],
)
def test_value_hints(kind, text, hint):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is looked at below
        PARSERS[kind](text)
    found = re.search(r"\(did you mean '(.*)'\?\)", str(caught.value))
    assert (found and found[1]) == hint

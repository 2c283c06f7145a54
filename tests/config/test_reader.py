from contextlib import suppress

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from devhost_server.config import reader
from devhost_server.config.problems import Origin
from devhost_server.config.reader import MAX_DEPTH, ReadError, type_scalar
from devhost_server.config.tree import plain
from tests.config.support import node


def error_of(text: str) -> ReadError:
    with pytest.raises(ReadError) as caught:
        node(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("1:30", "1:30"),
        ("012", "012"),
        ("00.5", "00.5"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2026-11-21", "2026-11-21"),
        ("\u0663", "\u0663"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_only_plain_words_and_decimal_numbers_are_typed(text, value):
    typed = type_scalar(text)
    assert typed == value
    assert type(typed) is type(value)


def test_quoted_scalars_are_text():
    assert plain(node("""{a: "1", b: 'true', c: "", d: 1}""")) == {"a": "1", "b": "true", "c": "", "d": 1}


def test_every_value_and_key_knows_its_place():
    tree = node("a:\n  b: [1,\n      two]\n")
    b = tree.value["a"].value["b"]
    assert b.key_at == Origin("test.yaml", 2, 3)
    assert b.at == Origin("test.yaml", 2, 6)
    assert b.value[1].at == Origin("test.yaml", 3, 7)


def test_keys_are_text_whatever_they_look_like():
    assert plain(node("404: a\non: b\nnull: c\n")) == {"404": "a", "on": "b", "null": "c"}


def test_a_key_given_twice_is_an_error_at_the_second():
    error = error_of("a: 1\nb: 2\na: 3\n")
    assert error.at == Origin("test.yaml", 3, 1)
    assert "the key 'a' is given twice, first in line 1" in error.message


def test_aliases_and_merge_keys():
    tree = node(
        """
        base: &base {x: 1, y: 2}
        same: *base
        over: {<<: *base, y: 3}
        many: {<<: [*base, {z: 4}], x: 0}
        """
    )
    assert plain(tree) == {
        "base": {"x": 1, "y": 2},
        "same": {"x": 1, "y": 2},
        "over": {"x": 1, "y": 3},
        "many": {"x": 0, "y": 2, "z": 4},
    }
    assert tree.value["same"].key_at.line == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!str 1", "the tag tag:yaml.org,2002:str is not allowed"),
        ("a: !!python/object/apply:os.system [x]", "is not allowed"),
        ("a: !x {}", "is not allowed"),
        ("a: 1\n---\nb: 2", "a second YAML document"),
        ("? [a]\n: 1", "keys are text"),
        ("&a [*a]", "alias"),
        ("a: *nope", "alias"),
        ("*a : 1", "alias"),
        ("a: &x 1\n*x : 2", "alias"),
        ("<<: 1", "must be a mapping"),
        ("<<: [{a: 1}, 2]", "must be a mapping"),
        ("a:\n\tb: 1", "indent with spaces"),
        ("a: b: c", "in quotes"),
        ("a: @x", "in quotes"),
        ("{to: ${URL}}", "not valid YAML"),
        ("a: [1,", "not valid YAML"),
        ('a: "x', "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("- a\nb: 1", "not valid YAML"),
    ],
)
def test_what_is_not_read_is_refused_with_a_sentence(text, says):
    assert says in error_of(text).message


def test_a_key_without_its_colon_is_found_where_it_is():
    error = error_of("routes:\n  web: 1\n  api\n    to: 1\n")
    assert error.at == Origin("test.yaml", 3, 3)
    assert "no ': ' after this key" in error.message


def test_depth_is_bounded():
    assert node("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for text in ("[" * 100_000, "- " * 5_000, "{a: " * 5_000, "? " * 5_000):
        assert f"deeper than {MAX_DEPTH} levels" in error_of(text).message or "keys are text" in error_of(text).message


def test_depth_through_aliases_is_bounded():
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 40))]
    assert f"more than {MAX_DEPTH} levels" in error_of("\n".join(lines)).message


def test_a_billion_laughs_are_refused():
    lines = ["a0: &a0 [lol, lol]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))]
    error = error_of("\n".join(lines))
    assert "unfolds to more than 100000 values" in error.message
    assert error.at.line is not None


@given(
    st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`,#?<~\n\t 019$") | st.characters(codec="utf-8"), max_size=60)
)
@example("a: &a [*a]")
@example("\ufeff")
@example("%YAML 9.9\n---\n")
def test_any_text_is_read_or_refused(text):
    with suppress(ReadError):
        plain(node(text))


def test_the_pure_python_parser_reads_the_same(monkeypatch):
    text = "a: [1, 'two', {b: ~}]\nc: &c {d: true}\ne: *c\n"
    with_c = plain(node(text))
    monkeypatch.setattr(reader, "_LOADER", yaml.SafeLoader)
    assert plain(node(text)) == with_c

"""What cannot be seen is spelled out, and JSON stays what it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.visible import json_string, visible, visible_json

INVISIBLE = [
    "\x00", "\x1b", "\x7f", "\x80", "\x85", "\x9b", "\x9f", "\u00ad", "\u061c", "\u200b", "\u200e", "\u200f",
    "\u2028", "\u2029", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069",
    "\ufeff", "\U000e0041",
]  # fmt: skip


@pytest.mark.parametrize("character", INVISIBLE)
def test_each_invisible_character_is_spelled_out(character: str) -> None:
    for spelled in (visible(f"a{character}b"), json_string(f"a{character}b").decode()):
        assert spelled.isprintable()
        assert character not in spelled
    assert json.loads(json_string(f"a{character}b")) == f"a{character}b"
    assert json.loads(visible_json(json.dumps({character: character}, ensure_ascii=False).encode())) == {
        character: character
    }


@given(st.text())
def test_json_means_what_it_meant(text: str) -> None:
    encoded = json_string(text)
    assert json.loads(encoded) == text
    assert encoded.decode().isprintable()
    assert visible(text).isprintable()


def test_lone_surrogates_are_no_error() -> None:
    assert visible("\udcff\ud800") == r"\xff\ud800"
    assert json.loads(json_string("\udcff")) == r"\udcff"


def test_what_can_be_seen_stays() -> None:
    assert visible("caf\u00e9 \U0001f600") == "caf\u00e9 \U0001f600"
    assert json_string('say "x"') == b'"say \\"x\\""'

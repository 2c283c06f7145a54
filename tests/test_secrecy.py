"""What is secret, and what is left to see of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.secrecy import MASK, SHOWN_BYTES, masked, may_hold_secret, shortened, without_secrets


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"token": None}, {"token": None}),
        ({"token": "x"}, {"token": MASK}),
        ({"api_secret": 5}, {"api_secret": MASK}),
        ({"X-API-Key": "x"}, {"X-API-Key": MASK}),
        ({"Set-Cookie": ["a", "b"]}, {"Set-Cookie": [MASK, MASK]}),
        ({"tokens": "x", "secretary": "y", "idempotency-key": "z"},) * 2,
        ([{"password": "x"}], [{"password": MASK}]),
        ({"token": {"to": 1}}, {"token": {"to": 1}}),
    ],
)
def test_keys_that_say_so(value: object, shown: object) -> None:
    assert masked(value) == shown


def test_all_below_a_secret_path_is_hidden_and_nothing_beside_it() -> None:
    value = {"a": {"b": [1, {"c": "x", "d": None}], "e": 2}, "b": 3}
    assert masked(value, {("a", "b")}) == {"a": {"b": [MASK, {"c": MASK, "d": None}], "e": 2}, "b": 3}
    assert masked(value, {("a", "b", 1, "c")}) == {"a": {"b": [1, {"c": MASK, "d": None}], "e": 2}, "b": 3}
    assert masked("x", {("a",)}, ("a",)) == MASK


def test_tokens_of_owners_are_hidden_and_their_names_are_not() -> None:
    value = {"admin": {"bind": "b", "tokens": {"alice": "x", "bob": None}}, "routes": {"tokens": {"alice": "y"}}}
    assert masked(value) == value | {"admin": {"bind": "b", "tokens": {"alice": MASK, "bob": None}}}


def test_what_is_given_stays_as_it_is() -> None:
    value = {"token": ["x"]}
    masked(value)
    assert value == {"token": ["x"]}


# -- what strangers wrote ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/?token=x", "/?token=***"),
        ("/?a=1&Access_Token=x&b=2", "/?a=1&Access_Token=***&b=2"),
        ("/?password=x=y&passwd=z", "/?password=***&passwd=***"),
        ("/?api_key=1;apikey=2", "/?api_key=***"),
        ("/?X-Amz-Signature=1&X-Amz-Credential=2", "/?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("/?client_secret=1#token=2", "/?client_secret=***#token=***"),
        ("/?%74oken=1&b=2", "/?%74oken=***&b=2"),
        ("/?sig=1&sid=2&key=3&code=4&keys=5&encode=6", "/?sig=***&sid=***&key=***&code=***&keys=5&encode=6"),
        ("/?api-key=1&pwd=2&jwt=3", "/?api-key=***&pwd=***&jwt=***"),
        ("/?a=token&b=c", "/?a=token&b=c"),
        ("/token=1", "/token=1"),
        ("/?token", "/?token"),
        ("http://u:p@a/x", "http://***@a/x"),
        ("//u@a", "//***@a"),
        ("/a@b?c=d@e", "/a@b?c=d@e"),
        ("/?a=1;token=S", "/?a=1;token=***"),
        ("/?x?token=S", "/?x?token=***"),
        ("/?token=a;b?c=d&e=f", "/?token=***&e=f"),
        ("/x;token=S/y?z=1", "/x;token=***"),
        ("/x#a=1&token=S", "/x#a=1&token=***"),
        ("/?%2574oken=S", "/?%2574oken=***"),
        ("/?to%6ben=S", "/?to%6ben=***"),
        ("/?state=id_token=S", "/?state=id_token=***"),
        ("/?next=%2Fcb%3Ftoken%3DS%26a%3D1&b=2", "/?next=%2Fcb%3Ftoken%3D***&b=2"),
        ("/?next=%252Fcb%253Ftoken%253DS", "/?next=%252Fcb%253Ftoken%253D***"),
        ("/?next=%2F%2Fme%3AS%40h%2Fx", "/?next=%2F%2F***@h%2Fx"),
        ("/?next=https%253A%252F%252Fme%253AS%2540h", "/?next=https%253A%252F%252F***@h"),
    ],
)
def test_secrets_are_masked(url: str, expected: str) -> None:
    assert without_secrets(url) == expected


def test_what_follows_more_names_than_are_judged_is_hidden() -> None:
    shown = without_secrets("/?" + "a=1&" * 100 + "b=2;to%6ben=S")
    assert shown == "/?" + "a=1&" * 64 + "a=***&" * 36 + "b=***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No route answers a.test/x?token=S and more.", "No route answers a.test/x?token=*** and more."),
        ("No route answers a.test/x?token=S;S&b=1.", "No route answers a.test/x?token=***&b=1."),
        ("http://me:S@a.test/ does not resolve", "http://***@a.test/ does not resolve"),
    ],
)
def test_in_prose_a_secret_ends_at_a_blank(text: str, expected: str) -> None:
    assert without_secrets(text, prose=True) == expected


@pytest.mark.parametrize(
    "url",
    ["http://me:S3CRET@a.test/", "/?next=http%3A%2F%2Fme:S3CRET%40a", "/x?token=S3CRETS3CRET", "/?a=1;%74oken=S3CRET"],
)
def test_wherever_a_text_is_cut_no_part_of_a_secret_is_left(url: str) -> None:
    for end in range(len(url)):
        shown = without_secrets(url[:end], cut=True)
        assert "S3" not in shown
        assert "me:" not in shown


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u20ac", "\U0001f600"])
def test_no_character_is_cut_in_two(character: str) -> None:
    for before in range(5):
        raw = b"." * before + character.encode() * SHOWN_BYTES
        text = shortened(raw).decode()  # or it would not be UTF-8
        assert SHOWN_BYTES - 4 < len(text.encode()) <= SHOWN_BYTES
    assert shortened(raw[:SHOWN_BYTES]) == raw[:SHOWN_BYTES]


@given(
    st.lists(
        st.sampled_from(["/", "?", "&", "=", "a", "token", "key", "%3D", "%2F", "%40", "@", "me", ";"]), max_size=12
    )
)
def test_what_may_hold_no_secret_is_left_as_it_is(parts: list[str]) -> None:
    text = "".join(parts)
    if not may_hold_secret(text.encode()):
        assert without_secrets(text) == text

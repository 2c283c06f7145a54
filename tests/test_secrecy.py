"""What is secret, and what is left to see of it."""

import pytest

from devhost_server.secrecy import MASK, masked


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

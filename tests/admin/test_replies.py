import orjson
import pytest
from starlette.requests import Request

from devhost_server.admin.replies import Edition, ProblemError, has_tag, json_answer


def asking(method: str = "GET", **headers: str) -> Request:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "headers": fields})


ONE = Edition("1a2b3c4d", 1)


def test_json_has_a_strong_tag_of_its_bytes() -> None:
    first, same = json_answer(asking(), {"a": 1}, ONE), json_answer(asking(), {"a": 1}, ONE)
    other = json_answer(asking(), {"a": 2}, ONE)
    assert first.body == b'{"a":1}'
    assert first.headers["etag"] == same.headers["etag"] != other.headers["etag"]
    assert first.headers["etag"].startswith('"')
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reader_that_has_it_already_gets_304(method: str) -> None:
    tag = json_answer(asking(), {"a": 1}, ONE).headers["etag"]
    answer = json_answer(asking(method, if_none_match=f'"x", W/{tag}'), {"a": 1}, ONE)
    assert (answer.status_code, answer.body, answer.headers["etag"]) == (304, b"", tag)
    assert json_answer(asking(method, if_none_match=tag), {"a": 2}, ONE).status_code == 200


def test_a_change_is_never_304() -> None:
    assert json_answer(asking("POST", if_none_match="*"), {"a": 1}, ONE, 202).status_code == 202


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([], True),
        (["*"], True),
        (['"1"'], True),
        (['"x", "1"'], True),
        (['"x"', '"1a2b3c4d.1.0123"'], True),
        (['W/"1a2b3c4d.1.0123"', 'W/"1"'], False),
        (['"2"'], False),
        (['"11"'], False),
        (['"1a2b3c4d.11.0123"'], False),
        (['"0a2b3c4d.1.0123"'], False),
        (["1"], False),
        ([""], False),
    ],
)
def test_an_edition_is_named_by_tags_of_its_own(values: list[str], named: bool) -> None:
    assert ONE.is_named(values) is named
    assert ONE.is_named([ONE.tag(b"x"), *values])


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], False),
        (['"a"'], True),
        (['W/"a"'], True),
        (['"b", "a"'], True),
        (['"b"', '"a"'], True),
        (["*"], True),
        (['"b"'], False),
        (["a"], False),
        ([""], False),
    ],
)
def test_tags_are_found(values: list[str], found: bool) -> None:
    assert has_tag(values, '"a"') is found


def test_a_problem_is_a_document() -> None:
    answer = ProblemError(503, "No worker is ready.", {"Retry-After": "1"}, {"errors": ["a"]}).response()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert orjson.loads(answer.body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "No worker is ready.",
        "errors": ["a"],
    }

"""How the admin listener answers: JSON with a validator, and problem documents (RFC 9457) for everything that fails."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.responses import Response

# What is served changes by the second and is nobody else's to keep.
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class ProblemError(Exception):
    """Ends a request with a problem document: the status, a sentence for the person who asked, further members."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, members: Mapping[str, object] = {}
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members)

    def response(self) -> Response:
        """Make the answer."""
        title = HTTPStatus(self.status).phrase
        document = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.members}
        return answer(orjson.dumps(document), "application/problem+json", self.status, self.headers)


def problem_bytes(status: int, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return a problem document as the whole and last answer on a connection."""
    response = ProblemError(status, sentence).response()
    lines = [b"%b: %b\r\n" % field for field in (*headers, *response.raw_headers)]
    start = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
    return b"".join((start, *lines, b"connection: close\r\n\r\n", response.body))


def answer(body: bytes, media_type: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `body` as it is; `media_type` is the whole Content-Type."""
    return Response(body, status, {**_HEADERS, "Content-Type": media_type, **(headers or {})})


@dataclass(frozen=True, slots=True)
class Edition:
    """Which configuration an answer is about: the instance of the gateway and the generation that it serves."""

    instance: str
    generation: int

    def tag(self, body: bytes) -> str:
        """Return the strong ETag of an answer: it names the edition, and what else is in the answer by a digest."""
        return f'"{self.instance}.{self.generation}.{blake2b(body, digest_size=12).hexdigest()}"'

    def is_named(self, values: list[str]) -> bool:
        """Return whether If-Match values allow a change of this edition; without any, every change is allowed.

        Compared is what a change replaces, the configuration: what else is in a tag follows load and health. Its
        generation alone is a name too. Weak tags match nothing (RFC 9110 §13.1.1).
        """
        named = [entry.strip() for value in values for entry in value.split(",")]
        mine = f'"{self.instance}.{self.generation}.'
        return not values or any(each in {"*", f'"{self.generation}"'} or each.startswith(mine) for each in named)


def json_answer(request: Request, content: object, edition: Edition, status: int = 200) -> Response:
    """Return `content` as JSON with a strong ETag; a read that already has it gets 304 (RFC 9110 §13.1.2)."""
    body = orjson.dumps(content)
    tag = edition.tag(body)
    if request.method in {"GET", "HEAD"} and has_tag(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers={**_HEADERS, "ETag": tag})
    return answer(body, "application/json", status, {"ETag": tag})


def has_tag(values: list[str], tag: str) -> bool:
    """Return whether If-None-Match values name `tag`, by weak comparison as §13.1.2 asks, or are ``*``."""
    named = [entry.strip().removeprefix("W/") for value in values for entry in value.split(",")]
    return tag in named or "*" in named

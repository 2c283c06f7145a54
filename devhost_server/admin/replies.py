"""How the admin listener answers: JSON with a validator, and problem documents (RFC 9457) for everything that fails."""

from collections.abc import Mapping
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


def answer(body: bytes, media_type: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Give `body` as it is; `media_type` is the whole Content-Type."""
    return Response(body, status, {**_HEADERS, "Content-Type": media_type, **(headers or {})})


def json_answer(request: Request, content: object, status: int = 200) -> Response:
    """Give `content` as JSON with a strong ETag; a read that already has it gets 304 (RFC 9110 §13.1.2)."""
    body = orjson.dumps(content)
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    if request.method in {"GET", "HEAD"} and has_tag(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers={**_HEADERS, "ETag": tag})
    return answer(body, "application/json", status, {"ETag": tag})


def has_tag(values: list[str], tag: str) -> bool:
    """Tell whether If-None-Match values name `tag`, by weak comparison as §13.1.2 asks, or are ``*``."""
    named = [entry.strip().removeprefix("W/") for value in values for entry in value.split(",")]
    return tag in named or "*" in named

"""The tiny application that all servers serve: it answers who asked, and notes every request that it executed.

The first segment of the path says how it behaves: `/lazy` does not read the body, `/early` answers 413 without reading
it, `/204` and `/304` are answered so, everything else reads all of the body and answers 200. `?say=…` is what it says,
whatever the method and the status; `&late=1` sends its second half a moment later.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

LATE_SECONDS = 0.03
_LOG = os.open(os.environ["SECURITY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_STATUS = {"early": 413, "204": 204, "304": 304}
REASONS = {200: "OK", 204: "No Content", 304: "Not Modified", 413: "Content Too Large"}


class Request:
    """One request, as a server reported it to its application. `field` returns a header field by its name, or ""."""

    def __init__(self, method: str, target: str, field: Callable[[str], str]) -> None:
        self.method = method
        self.target = target
        self.field = field
        parts = urlsplit(target if target.startswith("/") else "/")
        query = parse_qs(parts.query, encoding="latin-1")
        behaviour = parts.path.split("/")[1]
        self.status = _STATUS.get(behaviour, 200)
        self.reads_body = behaviour not in {"lazy", "early"}
        self.late = "late" in query
        self.say = query.get("say", [""])[0].encode("latin-1")

    def answer(self, body: bytes = b"") -> bytes:
        """Note that the request was executed, and return the content of its answer."""
        seen = {
            "method": self.method,
            "target": self.target,
            "victim": self.field("X-Victim"),
            "cookie": self.field("Cookie"),
            "length": len(body),
            "ip": self.field("X-Real-IP"),
        }
        line = json.dumps(seen).encode()
        os.write(_LOG, line + b"\n")
        return self.say or line

    def pieces(self, content: bytes) -> Iterator[bytes]:
        """Return the content as an application streams it: in one piece, or the second half a moment later."""
        if not self.late:
            yield content
            return
        half = len(content) // 2
        yield content[:half]
        time.sleep(LATE_SECONDS)
        yield content[half:]

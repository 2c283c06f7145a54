"""The gateway's parsers put together as its connections use them, to be compared with another reader."""

from devhost_server.failures import Fault
from devhost_server.messages.chunked import ChunkedDecoder, ChunkedError
from devhost_server.messages.request_head import parse_request_block, parse_request_line
from devhost_server.messages.response_head import parse_response
from tests.messages.llhttp import Line, Reading
from tests.messages.trusting import PROXY

TRAILER_LIMIT = 4096


def field_list(block: bytes) -> list[Line]:
    """Split a block that has been accepted into names and values."""
    lines = block.split(b"\r\n")[1:]
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def read_requests(data: bytes) -> list[Reading]:
    """Give the requests that the gateway accepts in `data`, up to the first that it refuses or that is unfinished."""
    found: list[Reading] = []
    while True:
        while data.startswith(b"\r\n"):
            data = data[2:]
        head, complete, rest = data.partition(b"\r\n\r\n")
        line, _, _ = head.partition(b"\r\n")
        if not complete:
            return found
        parsed = parse_request_line(line)
        if isinstance(parsed, Fault):
            return found
        method, target, old = parsed
        block = head[len(line) :]
        fields = parse_request_block(block, method, PROXY)
        if isinstance(fields, Fault):
            return found
        message = Reading(method, target, "1.0" if old else "1.1", fields=field_list(block))
        message.keep_alive = fields.keep_alive if old else not fields.close
        message.upgrade = fields.upgrade is not None
        remains = _read_body(message, rest, fields.length, chunked=fields.chunked)
        if remains is None:
            return found
        found.append(message)
        if not message.keep_alive or message.upgrade:
            return found
        data = remains


def read_responses(data: bytes) -> list[Reading]:
    """Give the responses that the gateway accepts in `data`, none of them as the answer to HEAD."""
    found: list[Reading] = []
    while True:
        head, complete, rest = data.partition(b"\r\n\r\n")
        line, _, _ = head.partition(b"\r\n")
        if not complete:
            return found
        block = head[len(line) :]
        answer = parse_response(line, block)
        if isinstance(answer, Fault):
            return found
        message = Reading(status=answer.status, version="1.0" if answer.old else "1.1", fields=field_list(block))
        message.keep_alive = not answer.close
        if not answer.allows_body(b"GET"):
            message.end, remains = True, rest
        elif not answer.chunked and answer.length is None:
            message.body, message.keep_alive, remains = rest, False, b""  # until the connection ends
            message.end = False
        else:
            end = _read_body(message, rest, answer.length, chunked=answer.chunked)
            if end is None:
                return found
            remains = end
        found.append(message)
        if not message.keep_alive or message.status == 101:
            return found
        data = remains


def _read_body(message: Reading, data: bytes, length: int | None, *, chunked: bool) -> bytes | None:
    """Read the body; give what stands behind it, or None if it is malformed or unfinished."""
    if chunked:
        decoder = ChunkedDecoder(TRAILER_LIMIT)
        try:
            message.body = b"".join(decoder.feed(data))
        except ChunkedError:
            return None
        if not decoder.done:
            return None
        message.trailers = field_list(decoder.trailers)
        message.end = True
        return decoder.rest
    length = length or 0
    if len(data) < length:
        return None
    message.body, message.end = data[:length], True
    return data[length:]

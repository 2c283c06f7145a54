"""How an answer is framed on an HTTP/1 connection to a client, and whether the connection outlives it.

Plain decisions about one exchange, for the door that sends its answer; nothing is sent here.
"""

from devhost_server.exchange import Exchange
from devhost_server.messages.response_head import ResponseHead


def client_persists(x: Exchange) -> bool:
    """Return whether the client wants its connection to outlive this exchange (RFC 9112 §9.3)."""
    fields = x.fields
    return fields is not None and not fields.close and (fields.keep_alive or not x.old)  # close is looked at first


def ends_connection(x: Exchange, response: ResponseHead) -> bool:
    """Return whether an answer ends the client's connection, whatever the client wants."""
    if x.finished_early and not x.request_complete:
        return True
    # To HTTP/1.0, the end of a body without a length is the end of the connection (RFC 9112 §6.3 item 8).
    return x.old and response.length is None and response.allows_body(x.method)


def sends_chunks(x: Exchange, response: ResponseHead) -> bool:
    """Return whether the content of an answer goes to the client in the chunked coding."""
    return response.length is None and not x.old and response.allows_body(x.method)


def framing_lines(x: Exchange, response: ResponseHead, *, chunked_body: bool, keep_alive: bool) -> bytes:
    """Return the lines that say how an answer is framed and whether its connection stays, each led by CRLF."""
    lines = b"\r\nTransfer-Encoding: chunked" if chunked_body or (response.chunked and not x.old) else b""
    if x.old or not keep_alive:
        lines += connection_lines(x, keep_alive=keep_alive)
    if response.status == 426 and response.upgrade is not None:
        lines += b"\r\nConnection: Upgrade\r\nUpgrade: " + response.upgrade  # RFC 9110 §15.5.22
    return lines


def connection_lines(x: Exchange, *, keep_alive: bool) -> bytes:
    """Return the Connection line of an answer, led by CRLF; HTTP/1.1 keeps alive without saying so."""
    if not keep_alive:
        return b"\r\nConnection: close"
    return b"\r\nConnection: keep-alive" if x.old else b""

"""The built-in echo upstream: an HTTP server that says what it was sent.

It gives a fresh gateway something to talk to, and gives tests, load tests and documentation an upstream whose every
answer can be checked. It sits directly on llhttp, so that header names, their order, case and duplicates are shown as
they arrived, which a framework would have normalised away.

=====================  =============================================================================================
`/headers`             the request header fields alone
`/bytes/N`             N bytes of `content` (at most `MAX_BYTES`); `?chunked=1` sends them without a Content-Length
`/delay/S`             the same answer as `/`, S seconds (a decimal, at most `MAX_DELAY`) after the request's end
`/status/N`            the final status N (200 to 599)
`/sse?count=&interval=`  server-sent events, endless and one a second unless told otherwise
`/ws`                  WebSocket echo, frame by frame, with permessage-deflate; `?close=CODE` is closed by the server
`/upload`              reads the body and answers its length and SHA-256
anything else          method, target, version, headers, body, client and process as JSON
=====================  =============================================================================================

A client that half-closes is sent the answers it still waits for, save those of `/delay` and `/sse`: nothing tells it
from a client that left, and an upstream that goes on waiting for nobody would hide a gateway that does not hang up.

It is meant for a loopback port: there are no time-outs for idle or slow clients, and no access control.
"""

from devhost_server.echo.server import serve

__all__ = ["serve"]

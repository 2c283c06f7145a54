"""The messages that the benchmarks pass: the smallest that is real, and a browser's."""

from typing import Final

SMALL: Final = b"GET /index.html HTTP/1.1\r\nHost: app.localhost:7777\r\nUser-Agent: curl/8.9.1\r\nAccept: */*\r\n\r\n"

BROWSER: Final = b"\r\n".join(
    (
        b"GET /assets/app.js?v=20261121 HTTP/1.1",
        b"Host: app.localhost:7777",
        b"Connection: keep-alive",
        b"Upgrade-Insecure-Requests: 1",
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        b"Sec-Fetch-Site: same-origin",
        b"Sec-Fetch-Mode: navigate",
        b"Sec-Fetch-User: ?1",
        b"Sec-Fetch-Dest: document",
        b"DNT: 1",
        b"Priority: u=0, i",
        b"Cookie: theme=dark; session=9f2c1d7a5e3b4860",
        b"Referer: http://app.localhost:7777/projects/42/board?view=mine",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        b'If-None-Match: W/"5f3c-18d2a1b0c40"',
        b"",
        b"",
    )
)

ANSWER: Final = b"\r\n".join(
    (
        b"HTTP/1.1 200 OK",
        b"Server: app",
        b"Date: Sat, 21 Nov 2026 09:00:00 GMT",
        b"Content-Type: text/html; charset=utf-8",
        b"Content-Length: 13",
        b"Cache-Control: no-cache",
        b'ETag: W/"5f3c-18d2a1b0c40"',
        b"Connection: keep-alive",
        b"",
        b"Hello, world!",
    )
)


def first_line(message: bytes) -> bytes:
    """Give the request or status line."""
    return message.partition(b"\r\n")[0]


def block_of(message: bytes) -> bytes:
    """Give the field block as the connections cut it: each line led by CRLF."""
    head = message.partition(b"\r\n\r\n")[0]
    return head[len(first_line(message)) :]

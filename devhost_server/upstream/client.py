"""The door to the upstreams for everything that is not proxied traffic: one `httpx.AsyncClient` per worker.

Its transport enters the same connections that the traffic uses, one level higher: health checks, authentication by
another service, mirrors and plugins speak httpx and share the pool, its limits and its metrics. The client is built on
first use, because httpx takes a third of a second to import, and anew in each process that asks: a client that was
built before a fork would share sockets with its parent.
"""

import os
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from devhost_server.upstream.upstream import Upstream


class UpstreamPool:
    """Holds the client of this process. `find` returns an upstream by name, None if there is none."""

    def __init__(self, find: "Callable[[str], Upstream | None]") -> None:
        self._find = find
        self._client: httpx.AsyncClient | None = None
        self._pid = 0

    def client(self) -> "httpx.AsyncClient":
        """Return the one client of this process. The host of a URL names the upstream: ``http://UPSTREAM/path``.

        It keeps no cookies (one user's session must never reach another), follows no redirects and ignores proxy
        variables in the environment. The time-outs of the upstream hold, not httpx's.
        """
        if self._client is None or self._pid != os.getpid():
            self._client, self._pid = self._build(), os.getpid()
        return self._client

    def _build(self) -> "httpx.AsyncClient":
        import httpx  # noqa: PLC0415 -- see above

        from devhost_server.upstream.transport import PoolTransport  # noqa: PLC0415 -- likewise

        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        transport = PoolTransport(self._find)
        no_limit = httpx.Timeout(None)
        return httpx.AsyncClient(transport=transport, cookies=no_cookies, trust_env=False, timeout=no_limit)

    async def aclose(self) -> None:
        """Close the client, if this process has built one."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            await client.aclose()

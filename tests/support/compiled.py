"""What a compiled build makes of the tests (see CONTRIBUTING.md): nearly all of them run against it as they are."""

from collections.abc import Generator
from types import coroutine
from typing import Any, Final

import pytest

from devhost_server import exchange
from devhost_server.exchange import Exchange

COMPILED: Final = not str(exchange.__file__).endswith(".py")
needs_source = pytest.mark.skipif(
    COMPILED, reason="watches or replaces functions that compiled code calls without looking them up"
)


@coroutine
def next_event(x: Exchange) -> Generator[Exchange, Any, Any]:
    """Wait for the next event of an exchange whose life is told in a test, which is never compiled.

    `Exchange.event` can be awaited by what is built as it is: either both are interpreted, or both are compiled.
    """
    return (yield from x.event())

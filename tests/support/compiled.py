"""What a compiled build makes of the tests (see CONTRIBUTING.md): nearly all of them run against it as they are."""

from typing import Final

import pytest

from devhost_server import exchange

COMPILED: Final = not str(exchange.__file__).endswith(".py")
needs_source = pytest.mark.skipif(
    COMPILED, reason="watches or replaces functions that compiled code calls without looking them up"
)

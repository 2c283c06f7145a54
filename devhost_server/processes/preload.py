"""What libraries import when they first need it, imported before the first fork instead.

A gateway runs for weeks, and what is installed may be replaced under it meanwhile: a process that imports a module then
gets a part of another version, or nothing. So the master imports everything that it or a fork of it will ever use, and
the forks share it. What the gateway's own modules import, they import when they are imported; here is the rest.
`tests/integration/test_imports.py` watches every process and finds what is missing.
"""

from importlib import import_module
from typing import Final

NAMES: Final = (
    # How the admin application runs something in a thread, and what uvicorn loads by name.
    "anyio._backends._asyncio",
    "uvicorn.lifespan.off",
    # International host names: in a configuration, and in what asks the resolver.
    "idna",
    "idna.uts46data",
    "encodings.idna",
    "encodings.punycode",
    # The httpx door, which is built when the first part asks for it.
    "httpx",
    "devhost_server.upstream.transport",
    # An error with a stack, told for the first time.
    "linecache",
    "tokenize",
    "traceback",
)


def preload() -> None:
    """Import them, in the master, before it forks."""
    for name in NAMES:
        import_module(name)

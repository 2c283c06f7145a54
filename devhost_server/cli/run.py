"""The verb ``run``: the gateway itself."""

import sys

from devhost_server.cli.group import cli
from devhost_server.cli.sources import chosen_sources, load_or_exit


@cli.command()
def run() -> None:
    """Run the gateway in the foreground."""
    sources = chosen_sources()
    loaded = load_or_exit(sources)
    # Only now: what serves takes five times as long to import as what checks.
    from devhost_server.processes import start  # noqa: PLC0415

    sys.exit(start.run(sources, loaded))

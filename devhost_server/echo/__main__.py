"""`python -m devhost_server.echo` runs the echo upstream alone, for tests and for trying things out."""

import click

from devhost_server.echo.server import bound, serve
from devhost_server.options import parse_bind
from devhost_server.sockets.listeners import ListenError, listen

DEFAULT_BIND = "127.0.0.1:7779"


@click.command()
@click.argument("bind", metavar="[HOST:PORT|unix:/PATH]", default=DEFAULT_BIND)
def main(bind: str) -> None:
    """Run the echo upstream alone, by default on 127.0.0.1:7779; port 0 takes a free one."""
    try:
        listener = listen(parse_bind(bind))
    except (ValueError, ListenError) as error:
        raise click.ClickException(str(error)) from error
    where = bound(listener)
    click.echo(f"echo upstream on {where if where.startswith('unix:') else f'http://{where}'}")
    serve(listener, stop_on_parent_exit=False)


if __name__ == "__main__":
    main(prog_name="python -m devhost_server.echo")

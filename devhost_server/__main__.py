"""``python -m devhost_server``, and the console script.

Imports next to nothing before `main`: what has to be settled first of all is settled before a second is spent on more.
"""

import signal


def main() -> None:
    """Run the command line."""
    # Until somebody listens to it, Ctrl-C ends the process. Python's KeyboardInterrupt would show where it came, or be
    # lost if it came while a destructor or a callback runs, of which imports have many.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from devhost_server.forks import open_missing_streams  # noqa: PLC0415 -- only now, see above

    open_missing_streams()
    from devhost_server import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()

"""Standard output that may be closed by its reader or full."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import click

# The errors of writing to stdout or stderr, without the broken pipe, which is no failure.
UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


class Stdout:
    """Standard output that nobody has to read to its end: `devhost-server routes | head -1` is no failure."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or discard it if the reader has closed the pipe."""
        with self._until_closed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer, or discard it if the reader has closed the pipe."""
        with self._until_closed():
            self._stream.flush()

    @contextlib.contextmanager
    def _until_closed(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # What is in the buffer is discarded too, when the interpreter ends.
            _discard_output(self._stream.fileno())


def exit_unwritable(error: OSError) -> NoReturn:
    """Exit with code 1, after a sentence on stderr if that can be written."""
    with contextlib.suppress(OSError):
        click.echo(f"the output cannot be written: {(error.strerror or str(error)).lower()}", err=True)
    # The interpreter flushes what is left in the buffers, which would fail again with a traceback and another code.
    _discard_output(1, 2)
    sys.exit(1)


def _discard_output(*descriptors: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)

"""How the master tells every process what it is to serve: documents in a memory file that all forks inherit.

The file has two halves for each document, written in turn, so that a reader of the last one is not disturbed by the
writing of the next. Place, length and check sum stand on the board row. A reader that was overtaken twice sees a wrong
check sum and asks again.

Only the master can write. The file is sealed against writing and against changes of its size (memfd_create(2)); what
the master writes goes through a mapping that was made before the seal and that no fork inherits (MADV_DONTFORK). So a
worker that is taken over cannot change what the others are told, whatever it opens or maps.
"""

import ctypes
import fcntl
import mmap
import os
import zlib
from contextlib import suppress
from enum import Enum
from typing import Final

from devhost_server.shared.board import Board, Scoreboard

_HALF: Final = 1 << 28  # bytes kept apart for each half: the file is sparse, only what is written takes memory
_SIZE: Final = 4 * _HALF
# Linux 5.1, and not in every Python's fcntl: no new writing, but for mappings that are there.
_F_SEAL_FUTURE_WRITE: Final = 0x10
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE


class Document(Enum):
    """The documents that are published, each with its first cell on the board row and its place in the file."""

    SNAPSHOT = (Board.SNAPSHOT_AT, 0)
    REPORT = (Board.REPORT_AT, 2)


class Publication:
    """The memory file. One process writes (the master), all read."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._board = scoreboard.board
        made = os.memfd_create("devhost-server", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(made, _SIZE)
        self._address = _mapped(made)
        with suppress(OSError):  # an older kernel does not know the last seal: then the descriptor is all there is
            fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        self._file = _read_only(made)

    def write(self, document: Document, text: bytes) -> None:
        """Publish `text` (under 256 MiB) as the new content of `document`. For the process that made this alone."""
        if len(text) > _HALF:
            raise ValueError(f"a document of {len(text)} bytes is too large to be published")
        cell, place = document.value
        halves = (place * _HALF, (place + 1) * _HALF)
        at = halves[1] if self._board[cell] == halves[0] and self._board[cell + 1] else halves[0]
        ctypes.memmove(self._address + at, text, len(text))
        self._board[cell] = at
        self._board[cell + 1] = len(text)
        self._board[cell + 2] = zlib.crc32(text)

    def read(self, document: Document) -> bytes | None:
        """Return the content of `document`; None if there is none yet or it was being replaced: ask again later."""
        cell, _ = document.value
        at, size, check = self._board[cell : cell + 3]
        if not size:
            return None
        text = os.pread(self._file, size, at)
        return text if zlib.crc32(text) == check else None


def _mapped(descriptor: int) -> int:
    """Map the whole file for writing, in this process and not in its forks; return the address.

    Not `mmap.mmap`: it keeps a writable descriptor that forks inherit, and unmaps in a fork what is mapped there
    meanwhile at the same address. This mapping stays for as long as the process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
    )  # fmt: skip
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address: int = libc.mmap(None, _SIZE, protection, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value or libc.madvise(address, _SIZE, mmap.MADV_DONTFORK):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return address


def _read_only(descriptor: int) -> int:
    """Return a descriptor of the same file that can only read, in place of one that could write."""
    try:
        reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc: the seal holds all the same
        return descriptor
    os.close(descriptor)
    return reading

"""How the master tells every process what it is to serve: documents in a memory file that all forks inherit.

The file has two halves for each document, written in turn, so that a reader of the last one is not disturbed by the
writing of the next. Place, length and check sum stand on the board row. A reader that was overtaken twice sees a wrong
check sum and asks again.
"""

import os
import zlib
from enum import Enum
from typing import Final

from devhost_server.observe.scoreboard import Board, Scoreboard

_HALF: Final = 1 << 30  # bytes kept apart for each half: the file is sparse, only what is written takes memory


class Document(Enum):
    """The documents that are published, each with its first cell on the board row and its place in the file."""

    SNAPSHOT = (Board.SNAPSHOT_AT, 0)
    REPORT = (Board.REPORT_AT, 2)


class Publication:
    """The memory file. One process writes (the master), all read."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._board = scoreboard.board
        self._file = os.memfd_create("devhost-server", os.MFD_CLOEXEC)

    def write(self, document: Document, text: bytes) -> None:
        """Publish `text` (under 1 GiB) as the new content of `document`."""
        cell, place = document.value
        halves = (place * _HALF, (place + 1) * _HALF)
        at = halves[1] if self._board[cell] == halves[0] and self._board[cell + 1] else halves[0]
        written = 0
        while written < len(text):
            written += os.pwrite(self._file, text[written:], at + written)
        self._board[cell] = at
        self._board[cell + 1] = len(text)
        self._board[cell + 2] = zlib.crc32(text)

    def read(self, document: Document) -> bytes | None:
        """Give the content of `document`; None if there is none yet or it was being replaced: ask again later."""
        cell, _ = document.value
        at, size, check = self._board[cell : cell + 3]
        if not size:
            return None
        text = os.pread(self._file, size, at)
        return text if zlib.crc32(text) == check else None

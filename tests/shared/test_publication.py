"""Who can write what the master publishes: the master, whatever the others open or map.

That readers get whole documents is in `test_scoreboard.py`.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
from collections.abc import Callable

import pytest

from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.shared.publication import Document, Publication
from tests.shared.boards import exit_code, fork

NAME = "/memfd:devhost-server (deleted)"


def published() -> Publication:
    publication = Publication(Scoreboard(Capacity(slots=1, routes=1, upstreams=1, targets=1)))
    publication.write(Document.SNAPSHOT, b"the truth")
    return publication


def open_files() -> list[int]:
    """The descriptors of this process that lead to a publication."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == NAME:
                found.append(int(name))
    return found


def writable_mappings() -> list[str]:
    with open("/proc/self/maps") as maps:
        return [line for line in maps if NAME.removesuffix(" (deleted)") in line and "w" in line.split()[1]]


def reopened(how: int) -> Callable[[int], int]:
    return lambda descriptor: os.open(f"/proc/self/fd/{descriptor}", how)


def punch(descriptor: int) -> None:
    """Deallocate the first page (fallocate(2), FALLOC_FL_PUNCH_HOLE with FALLOC_FL_KEEP_SIZE)."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(descriptor, 3, 0, 4096):
        raise OSError(ctypes.get_errno(), "no hole")


WAYS: dict[str, Callable[[int], object]] = {
    "write": lambda fd: os.write(fd, b"a lie"),
    "pwrite": lambda fd: os.pwrite(fd, b"a lie", 0),
    "map": lambda fd: mmap.mmap(fd, 4096),
    "shrink": lambda fd: os.ftruncate(fd, 0),
    "grow": lambda fd: os.ftruncate(fd, 1 << 33),
    "punch a hole": punch,
    "unseal": lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR], ids=["as it is", "to write", "to do both"])
def test_no_fork_can_change_what_is_published(way: str, how: int) -> None:
    others = set(open_files())  # what other tests of this process may have left open
    publication = published()

    def try_it() -> None:
        assert not writable_mappings()
        mine = set(open_files()) - others
        assert mine
        for descriptor in mine:
            assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            with pytest.raises((OSError, ValueError)):  # ValueError: mmap sees that it is not open for writing
                WAYS[way](reopened(how)(descriptor))
        assert publication.read(Document.SNAPSHOT) == b"the truth"

    assert exit_code(fork(try_it)) == 0
    assert publication.read(Document.SNAPSHOT) == b"the truth"


def test_the_master_goes_on_writing() -> None:
    publication = published()
    ready, told = os.pipe(), os.pipe()

    def read() -> None:
        assert publication.read(Document.SNAPSHOT) == b"the truth"
        os.write(ready[1], b"!")
        os.read(told[0], 1)
        assert publication.read(Document.SNAPSHOT) == b"something newer"

    reader = fork(read)
    os.read(ready[0], 1)
    publication.write(Document.SNAPSHOT, b"something newer")
    os.write(told[1], b"!")
    assert exit_code(reader) == 0
    for end in (*ready, *told):
        os.close(end)


def test_what_is_too_large_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    publication = published()
    monkeypatch.setattr("devhost_server.shared.publication._HALF", 100)
    with pytest.raises(ValueError, match="too large"):
        publication.write(Document.SNAPSHOT, bytes(101))
    assert publication.read(Document.SNAPSHOT) == b"the truth"

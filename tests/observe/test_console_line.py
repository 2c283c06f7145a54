"""Lines for people: on a terminal, and nowhere else."""

import contextlib
import json
import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.failures import CONNECT_REFUSED
from devhost_server.observe.access_line import LINE_BYTES
from devhost_server.observe.access_log import AccessLog
from devhost_server.observe.console_line import ConsoleLines
from devhost_server.route import Route
from tests.observe.test_access_log import Reader, exchange, row, stdout_is

COLOUR = re.compile(r"\x1b\[[0-9]+m")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@contextlib.contextmanager
def terminal() -> Iterator[Reader]:
    """Let standard output be a terminal."""
    ours, theirs = os.openpty()
    with stdout_is(theirs):
        yield Reader(ours)
    os.close(theirs)
    os.close(ours)


def read(reader: Reader) -> str:
    with contextlib.suppress(OSError):
        reader.read()
    return reader.data.decode().replace("\r\n", "\n")


def test_a_person_reads_what_happened() -> None:
    x = exchange(b"/v1?a=b&token=s3cret", route=Route("api", 0), method=b"POST", bytes_out=1_440, status=502)
    x.fault, x.seconds = CONNECT_REFUSED(""), 0.0123
    with terminal() as reader:
        log = AccessLog("stdout", row(), 0)
        log.write(x)
        log.close()
        line = read(reader)
    assert COLOUR.search(line)
    plain = COLOUR.sub("", line)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} 502 POST a\.test/v1\?a=b&token=\*\*\*  api  12\.3 ms  1\.4 kB  UF\n", plain
    )


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert b"\x1b" not in ConsoleLines().line(exchange())


def test_json_on_a_terminal_if_asked_for() -> None:
    with terminal() as reader:
        log = AccessLog("stdout", row(), 0, json=True)
        log.write(exchange())
        log.close()
        assert json.loads(read(reader))["status"] == 200


def test_json_elsewhere() -> None:
    reading, writing = os.pipe()
    with stdout_is(writing):
        log = AccessLog("stdout", row(), 0)
    os.close(writing)
    log.write(exchange())
    log.close()
    assert json.loads(Reader(reading).read())["status"] == 200
    os.close(reading)


PIECES = [
    b"a",
    b"\x1b[2J",
    b"\x00",
    b"\xff",
    b"\xc2\x85",
    b"\xe2\x80\xae",
    "\u20ac".encode(),
    "\U0001f600".encode(),
    b"?token=s3",
]
texts = st.builds(lambda pieces, count: b"".join(pieces) * count, st.lists(st.sampled_from(PIECES), max_size=6),
                  st.sampled_from([1, 40, 9000]))  # fmt: skip


@given(texts, texts, texts)
def test_whatever_a_client_sends_is_one_line_that_fits(target: bytes, host: bytes, method: bytes) -> None:
    line = ConsoleLines().line(exchange(target, host=host, method=method, route=Route("r" * 63, 0)))
    assert len(line) <= LINE_BYTES
    assert line.endswith(b"\n")
    assert COLOUR.sub("", line[:-1].decode()).isprintable()
    assert b"s3" not in line.replace(b"\\x", b"")


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_440_000, "1.4 MB"), (10**19, "10000.0 PB")]
)
def test_sizes(count: int, shown: str) -> None:
    x = exchange(bytes_out=count)
    assert f"  {shown}\n".encode() in ConsoleLines().line(x)

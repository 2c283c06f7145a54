"""The access log: sound JSON whatever clients send, no secrets, nothing lost without being counted."""

import contextlib
import json
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devhost_server.exchange import Exchange
from devhost_server.failures import CONNECT_REFUSED
from devhost_server.messages.request_head import RequestFields, parse_request_block
from devhost_server.observe.access_line import JsonLines, quoted
from devhost_server.observe.access_log import AccessLog, AccessLogError, check_destination
from devhost_server.route import Route
from devhost_server.shared.board import Capacity, Scoreboard, Slot
from tests.messages.trusting import STRANGER

# The order of the contract.
KEYS = [
    "ts", "request_id", "route", "client", "method", "host", "target", "protocol", "status", "flag", "bytes_in",
    "bytes_out",
    "duration_ms", "upstream", "target_addr", "attempts", "connect_ms", "upstream_ms", "worker", "user_agent",
    "referer",
    "traceparent",
]  # fmt: skip


def row() -> memoryview:
    return Scoreboard(Capacity(1, 1, 1, 1)).row(0)


def exchange(target: bytes = b"/", *, fields: RequestFields | None = None, **values: Any) -> Exchange:
    """An exchange that is over, as the gateway would hand it to the log."""
    x = Exchange(cast("Any", None), values.pop("method", b"GET"), target, fields or RequestFields([]), 0.0)
    x.request_id = b"id-1"
    x.client_address = b"203.0.113.9"
    x.host = b"a.test"
    x.status = 200
    for name, value in values.items():
        setattr(x, name, value)
    return x


def fields_of(**fields: bytes) -> RequestFields:
    block = b"".join(b"\r\n" + name.replace("_", "-").encode() + b": " + value for name, value in fields.items())
    parsed = parse_request_block(block, b"GET", STRANGER)
    assert isinstance(parsed, RequestFields)
    return parsed


def raw_fields(**values: bytes) -> RequestFields:
    """Fields as no parser would pass them: whatever bytes, the log has to cope."""
    fields = RequestFields([])
    for name, value in values.items():
        setattr(fields, name, value)
    return fields


def entries(data: bytes) -> list[dict[str, Any]]:
    """Give the lines of a log; each must be one JSON object with the fields of the contract in their order."""
    assert not data or data.endswith(b"\n")
    lines = [json.loads(line, object_pairs_hook=list) for line in data.split(b"\n")[:-1]]
    assert all([key for key, _ in line] == KEYS for line in lines)
    return [dict(line) for line in lines]


@contextlib.contextmanager
def log_to(path: Path, cells: memoryview | None = None) -> Iterator[AccessLog]:
    log = AccessLog(str(path), row() if cells is None else cells, worker=3)
    try:
        yield log
    finally:
        log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def entry_of(path: Path, x: Exchange, seconds: float = 0.0015) -> dict[str, Any]:
    with log_to(path) as log:
        x.seconds = seconds
        log.write(x)
    (entry,) = entries(path.read_bytes())
    path.unlink()
    return entry


# --- the line --------------------------------------------------------------------------------------------------------


def test_what_a_line_says(path: Path) -> None:
    fields = fields_of(host=b"a.test", user_agent=b"curl/8", referer=b"http://b.test/", traceparent=b"00-1-2-03")
    entry = entry_of(
        path,
        exchange(b"/v1?a=b", fields=fields, method=b"POST", route=Route("api", 0), old=True, bytes_in=1, bytes_out=2,
                 attempts=1, connect_seconds=0.001, upstream_seconds=0.0105, status=201),
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("ts"))
    assert entry == {
        "request_id": "id-1", "route": "api", "client": "203.0.113.9", "method": "POST", "host": "a.test",
        "target": "/v1?a=b", "protocol": "HTTP/1.0", "status": 201, "flag": None, "bytes_in": 1, "bytes_out": 2,
        "duration_ms": 1.5, "upstream": None, "target_addr": None, "attempts": 1, "connect_ms": 1.0,
        "upstream_ms": 10.5,
        "worker": 3, "user_agent": "curl/8", "referer": "http://b.test/", "traceparent": "00-1-2-03",
    }  # fmt: skip


def test_what_is_not_known_is_null(path: Path) -> None:
    x = exchange(b"", method=b"")
    x.fields = None
    x.host = b""
    x.fault = CONNECT_REFUSED("nothing listens there")
    entry = entry_of(path, x)
    unknown = [
        "route",
        "host",
        "upstream",
        "target_addr",
        "connect_ms",
        "upstream_ms",
        "user_agent",
        "referer",
        "traceparent",
    ]
    assert [entry[key] for key in unknown] == [None] * len(unknown)
    assert entry["flag"] == "UF"
    assert entry["protocol"] == "HTTP/1.1"


hostile = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b'"', b"\\", b'\\"', b'","status":500,"x":"', b"\n", b"\x00", b"\xff\xfe", b"\xed\xa0\x80",
                     b"\x7f", b"{}", b"\xe2\x80\xa8"]),
)  # fmt: skip


@given(hostile, hostile, hostile, hostile, hostile, hostile)
def test_every_line_is_sound_whatever_a_client_sends(
    tmp_path_factory: pytest.TempPathFactory,
    target: bytes,
    method: bytes,
    host: bytes,
    agent: bytes,
    referer: bytes,
    trace: bytes,
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.log"
    fields = raw_fields(user_agent=agent, referer=referer, traceparent=trace)
    entry = entry_of(path, exchange(target, fields=fields, method=method, host=host))
    assert entry["status"] == 200
    for name, raw in (("target", target), ("host", host), ("user_agent", agent), ("method", method)):
        if raw and b"@" not in raw and b"=" not in raw:
            assert entry[name] == raw.decode("utf-8", "backslashreplace")


@given(hostile)
@example(b"\xff\\")
def test_quoting_is_json(raw: bytes) -> None:
    assert json.loads(quoted(raw)) == raw.decode("utf-8", "backslashreplace")
    assert b"\n" not in quoted(raw)


def test_requests_that_share_their_fields_do_not_share_what_differs(path: Path) -> None:
    """The same bytes of a head are analysed once; route, method and host may still change from request to request."""
    fields = fields_of(host=b"a.test", user_agent=b"one")
    host = fields.host
    assert host is not None
    api, web = Route("api", 0), Route("web", 1)
    with log_to(path) as log:
        for route, method, name in ((api, b"GET", host), (web, b"GET", host), (web, b"PUT", host), (None, b"PUT", host),
                                    (web, b"PUT", b"b.test"), (api, b"GET", host)):  # fmt: skip
            log.write(exchange(b"/", fields=fields, route=route, method=method, host=name))
    told = [(entry["route"], entry["method"], entry["host"]) for entry in entries(path.read_bytes())]
    assert told == [("api", "GET", "a.test"), ("web", "GET", "a.test"), ("web", "PUT", "a.test"), (None, "PUT",
                    "a.test"),
                    ("web", "PUT", "b.test"), ("api", "GET", "a.test")]  # fmt: skip


# --- secrets ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b""]), st.binary(max_size=5)), max_size=4),
    st.sampled_from([b"token", b"id_TOKEN", b"x-secret-y", b"Passwd", b"apikey", b"API_KEY", b"signature", b"oauth",
                     b"credentials"]),
    st.sampled_from([b"", b"%20", b"=", b"a/b?", b"+"]),
)  # fmt: skip
def test_no_secret_is_ever_written(
    tmp_path_factory: pytest.TempPathFactory, others: list[tuple[bytes, bytes]], name: bytes, before: bytes
) -> None:
    pairs = [(key, re.sub(rb"[^a-z0-9]", b"", value)) for key, value in others]
    pairs.insert(len(pairs) // 2, (name, before + b"hunter2"))
    query = b"&".join(b"=".join(pair) for pair in pairs)
    fields = raw_fields(user_agent=b"u", referer=b"http://me:hunter2@a.test/?" + query)
    path = tmp_path_factory.getbasetemp() / "secrets.log"
    entry = entry_of(path, exchange(b"/x?" + query, fields=fields))
    assert "hunter2" not in json.dumps(entry)


# --- its length ------------------------------------------------------------------------------------------------------

# What grows most when it is quoted, and what is most easily cut in two.
PIECES = [b"a", b'"', b"\\", b"\x00", b"\xff", b"\xc2\x85", b"\xe2\x80\xae", "\u20ac".encode(), "\U000e0041".encode(),
          b"=", b"&token=", b"?", b"%", b"//me:s3cret@", "\U0001f600".encode()]  # fmt: skip
long = st.builds(lambda pieces, count: b"".join(pieces) * count, st.lists(st.sampled_from(PIECES), max_size=8),
                 st.sampled_from([1, 40, 400, 9000]))  # fmt: skip


@given(long, long, long, long, long, long)
def test_a_line_fits_into_one_piece_of_a_pipe(
    target: bytes, method: bytes, host: bytes, agent: bytes, referer: bytes, trace: bytes
) -> None:
    fields = raw_fields(user_agent=agent, referer=referer, traceparent=trace)
    x = exchange(target, fields=fields, method=method, host=host, route=Route("r" * 63, 0), bytes_in=10**15)
    x.request_id, x.client_address, x.bytes_out, x.seconds, x.upstream_seconds = b"i" * 128, b"f" * 39, 10**15, 1e6, 1e6
    lines = JsonLines(99)
    for fault in (None, CONNECT_REFUSED("")):
        x.fault = fault
        line = lines.line(x)
        assert len(line) <= select.PIPE_BUF
        assert line.endswith(b"\n")
        assert line[:-1].decode().isprintable()
        (entry,) = entries(line)
        assert "s3cret" not in json.dumps(entry)
        assert lines.line(x)[40:] == line[40:], "what is remembered changes nothing"


def test_who_needs_little_room_is_not_cut() -> None:
    fields = raw_fields(user_agent=b"agent", referer=b"\x00" * 5000)
    (entry,) = entries(JsonLines(0).line(exchange(b"/" + b"p" * 5000, fields=fields)))
    assert (entry["method"], entry["host"], entry["user_agent"], entry["traceparent"]) == (
        "GET",
        "a.test",
        "agent",
        None,
    )
    assert len(entry["target"]) > 1500
    assert entry["target"].endswith("\u2026")
    assert entry["referer"].endswith("\x00\u2026")


def test_a_long_text_is_cut_and_says_so(path: Path) -> None:
    assert entry_of(path, exchange(b"/" + b"p" * 4999))["target"] == "/" + "p" * 2047 + "\u2026 (5000 bytes)"


def test_lines_of_two_workers_do_not_mix_in_a_pipe() -> None:
    read, write = os.pipe()
    with stdout_is(write):
        logs = [AccessLog("stdout", row(), worker) for worker in range(2)]
    os.close(write)
    reader = Reader(read)
    for number in range(200):
        for log in logs:
            log.write(exchange(b"/%d" % number + bytes([number % 128]) * 5000))
            log.flush()
        reader.read()
    while any(log.held for log in logs):
        for log in logs:
            log.flush()
        reader.read()
    assert len(entries(reader.read())) == 400
    for log in logs:
        log.close()
    os.close(read)


# --- where it is written ---------------------------------------------------------------------------------------------


def test_no_log_at_all() -> None:
    log = AccessLog(None, row(), 0)
    assert not log.enabled
    log.reopen()
    log.flush()
    log.close()


def test_lines_are_written_when_they_are_flushed(path: Path) -> None:
    with log_to(path) as log:
        assert log.enabled
        log.write(exchange(b"/1"))
        assert path.read_bytes() == b""
        log.flush()
        assert [entry["target"] for entry in entries(path.read_bytes())] == ["/1"]
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_large_batch_does_not_wait(path: Path) -> None:
    with log_to(path) as log:
        for _ in range(2000):
            log.write(exchange())
        assert len(entries(path.read_bytes()[: path.read_bytes().rindex(b"\n") + 1])) > 1000


def test_after_a_rotation_lines_go_to_the_new_file(path: Path) -> None:
    with log_to(path) as log:
        log.write(exchange(b"/1"))
        old = path.rename(path.with_suffix(".1"))
        log.write(exchange(b"/2"))
        log.reopen()
        log.write(exchange(b"/3"))
    assert [entry["target"] for entry in entries(old.read_bytes())] == ["/1", "/2"]
    assert [entry["target"] for entry in entries(path.read_bytes())] == ["/3"]


def test_a_file_that_cannot_be_opened_anew_goes_on_as_it_was(path: Path) -> None:
    folder = path.parent / "logs"
    folder.mkdir()
    file = folder / "access.log"
    with log_to(file) as log:
        folder = folder.rename(path.parent / "elsewhere")
        log.reopen()
        log.write(exchange(b"/1"))
    assert len(entries((folder / "access.log").read_bytes())) == 1


def test_a_file_that_never_could_be_opened_loses_lines_and_counts_them(path: Path) -> None:
    cells = row()
    with log_to(path / "no" / "such", cells) as log:
        for _ in range(5):
            log.write(exchange())
        log.flush()
        assert cells[Slot.LOG_DROPPED] == 5


def test_a_file_that_could_not_be_opened_is_told_and_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("devhost_server.observe.access_log.time.monotonic", lambda: now)
    folder = path.parent / "later"
    with log_to(folder / "access.log") as log:
        for second in range(59):
            now = 1000.0 + second
            log.write(exchange(b"/lost"))
            log.flush()
        (told,) = caplog.messages
        assert told.startswith(f"worker 3: log.access: cannot write to {folder}/access.log: No such file or directory")
        folder.mkdir()
        now += 1
        log.write(exchange(b"/1"))
        log.flush()
        assert [entry["target"] for entry in entries((folder / "access.log").read_bytes())] == ["/1"]


def test_a_device_that_is_full_is_told_once_a_minute_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, cells = 1000.0, row()
    monkeypatch.setattr("devhost_server.observe.access_log.time.monotonic", lambda: now)
    log = AccessLog("/dev/full", cells, 0)
    for second in range(120):
        now = 1000.0 + second
        log.write(exchange())
        log.flush()
    assert len(caplog.messages) == 2
    assert "log.access: cannot write to /dev/full: No space left on device" in caplog.messages[0]
    assert log.held
    assert not log.is_awaited
    log.close()
    assert cells[Slot.LOG_DROPPED] == 120


def test_a_reader_that_is_slow_is_awaited_and_no_failure(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path), row(), 0)
    for _ in range(500):
        log.write(exchange())
    log.flush()
    assert log.is_awaited
    assert caplog.messages == []
    log.close()
    os.close(reader)


@pytest.mark.parametrize("kind", ["no folder", "a folder"])
def test_a_destination_that_cannot_be_opened_is_a_sentence(path: Path, kind: str) -> None:
    if kind == "no folder":
        path, why = path / "no" / "such", "No such file or directory"
    else:
        path.mkdir()
        why = "Is a directory"
    with pytest.raises(AccessLogError) as checked:
        check_destination(str(path))
    with pytest.raises(AccessLogError) as opened:
        AccessLog.opened(str(path), row(), 0)
    assert str(checked.value) == str(opened.value) == f"log.access: cannot write to {path}: {why}"


@pytest.mark.parametrize("destination", [None, "stdout", "file", "/dev/full"])
def test_a_destination_that_can_be_opened_is_left_as_it_is(path: Path, destination: str | None) -> None:
    if destination == "file":
        destination = str(path)
        path.write_text("before\n")
    check_destination(destination)
    AccessLog.opened(destination, row(), 0).close()
    if destination == str(path):
        assert path.read_text() == "before\n"


def test_a_pipe_is_not_closed_under_its_reader_by_the_check(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    check_destination(str(path))
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(0) == [], "no hangup"
    os.close(reader)
    with pytest.raises(AccessLogError, match="does nobody read it"):
        AccessLog.opened(str(path), row(), 0)


def test_several_workers_append_to_one_file(path: Path) -> None:
    with log_to(path) as one, log_to(path) as other:
        for number in range(50):
            (one if number % 2 else other).write(exchange(b"/%d" % number))
            if number % 7 == 0:
                one.flush()
                other.flush()
    assert sorted(int(entry["target"][1:]) for entry in entries(path.read_bytes())) == list(range(50))


# --- pipes and sockets -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stdout_is(fd: int) -> Iterator[None]:
    """Let this process have another standard output for a while."""
    kept = os.dup(1)
    os.dup2(fd, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class Reader:
    """The other end of a pipe or socket."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)
        self.data = b""

    def read(self) -> bytes:
        """Take what has come."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.fd, 1 << 20):
                self.data += piece
        return self.data


@pytest.fixture(params=["fifo", "pipe", "socket"])
def shared(request: pytest.FixtureRequest, path: Path) -> Iterator[tuple[AccessLog, Reader, memoryview]]:
    """A log whose destination may be full, its reader, and the cells it counts in."""
    cells = row()
    with contextlib.ExitStack() as stack:
        if request.param == "fifo":
            os.mkfifo(path)
            read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            log = AccessLog(str(path), cells, 0)
        else:
            if request.param == "pipe":
                read, write = os.pipe()
            else:
                ours, theirs = socket.socketpair()
                read, write = ours.detach(), theirs.detach()
            with stdout_is(write):
                log = AccessLog("stdout", cells, 0)
            os.close(write)
        stack.callback(os.close, read)
        stack.callback(log.close)
        yield log, Reader(read), cells


Shared = tuple[AccessLog, Reader, memoryview]


def read_all(log: AccessLog, reader: Reader) -> bytes:
    """Read on until nothing more comes."""
    before = -1
    while before != len(reader.data):
        before = len(reader.data)
        reader.read()
        log.flush()
    return reader.data


def test_lines_reach_whoever_reads(shared: Shared) -> None:
    log, reader, cells = shared
    for number in range(300):
        log.write(exchange(b"/%d" % number))
    log.flush()
    assert [entry["target"] for entry in entries(read_all(log, reader))] == [f"/{number}" for number in range(300)]
    assert not cells[Slot.LOG_DROPPED]


def test_a_reader_that_sleeps_holds_nobody_up_and_every_lost_line_is_counted(shared: Shared) -> None:
    log, reader, cells = shared
    total = 16_000  # 6 MB and more: what is held, what the kernel takes, and some
    x = exchange(b"")
    padding = b"/" + b"x" * 60
    began = time.process_time()
    for number in range(total):
        x.target_path = b"/%d" % number + padding
        log.write(x)
    log.flush()
    assert time.process_time() - began < 2.0, "a log that cannot be written must not slow down the traffic"
    dropped = cells[Slot.LOG_DROPPED]
    assert 0 < dropped < total
    numbers = [int(entry["target"].split("/")[1]) for entry in entries(read_all(log, reader))]
    assert numbers == sorted(numbers)
    assert len(numbers) + cells[Slot.LOG_DROPPED] == total
    assert cells[Slot.LOG_DROPPED] == dropped


def test_lines_longer_than_the_kernel_keeps_whole_arrive_whole(shared: Shared) -> None:
    log, reader, cells = shared
    for number in range(40):
        log.write(exchange(b"/%d/" % number + b"y" * 10_000))
        log.flush()
    assert len(entries(read_all(log, reader))) == 40
    assert not cells[Slot.LOG_DROPPED]


def test_lines_for_a_reader_that_is_gone_are_counted(shared: Shared) -> None:
    log, reader, cells = shared
    log.write(exchange())
    log.flush()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), reader.fd)  # the other end is closed by this
    for _ in range(10):
        log.write(exchange())
        log.flush()
    assert cells[Slot.LOG_DROPPED] == 10


def test_a_file_as_standard_output(path: Path) -> None:
    with path.open("wb") as file, stdout_is(file.fileno()):
        log = AccessLog("stdout", row(), 0)
    log.write(exchange())
    log.close()
    assert len(entries(path.read_bytes())) == 1

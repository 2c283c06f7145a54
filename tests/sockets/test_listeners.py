"""Listening sockets: every kind of address, and a sentence for every reason why one cannot be had."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from devhost_server.options import Bind, parse_bind
from devhost_server.sockets.listeners import ListenError, give_up, listen, listen_all
from tests.support import free_port


@contextlib.contextmanager
def listening(bind: Bind) -> Iterator[socket.socket]:
    with contextlib.closing(listen(bind)) as listener:
        yield listener


@contextlib.contextmanager
def listening_privately(bind: Bind) -> Iterator[socket.socket]:
    with contextlib.closing(listen(bind, private=True)) as listener:
        yield listener


def refusal(bind: Bind) -> str:
    with pytest.raises(ListenError) as caught:
        listen(bind)
    return str(caught.value)


def answers(family: socket.AddressFamily, address: object) -> bool:
    with socket.socket(family) as client:
        client.settimeout(2)
        return client.connect_ex(address) == 0  # type: ignore[arg-type]


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def test_a_tcp_listener_is_ready_for_workers() -> None:
    with listening(parse_bind("127.0.0.1:0")) as listener:
        assert answers(socket.AF_INET, listener.getsockname())
        assert not listener.getblocking()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@needs_ipv6
def test_ipv6_leaves_the_port_to_ipv4() -> None:
    port = free_port()
    with listening(parse_bind(f"[::1]:{port}")), listening(parse_bind(f"127.0.0.1:{port}")):
        assert answers(socket.AF_INET6, ("::1", port))
        assert answers(socket.AF_INET, ("127.0.0.1", port))


@needs_ipv6
def test_every_address_means_both_families() -> None:
    with listening(parse_bind("[::]:0")) as listener:
        port = listener.getsockname()[1]
        assert answers(socket.AF_INET6, ("::1", port))
        assert answers(socket.AF_INET, ("127.0.0.1", port))


def test_a_port_can_be_listened_on_again_at_once() -> None:
    with listening(parse_bind("127.0.0.1:0")) as listener:
        address = listener.getsockname()
        client = socket.create_connection(address)
        connection, _ = listener.accept()
        connection.close()  # the listener's side closes first: its port is in TIME_WAIT
        client.close()
    with listening(Bind(*address)):
        assert answers(socket.AF_INET, address)


def test_a_port_in_use_is_told() -> None:
    with listening(parse_bind("127.0.0.1:0")) as listener:
        port = listener.getsockname()[1]
        text = refusal(parse_bind(f"127.0.0.1:{port}"))
    assert (
        text == f"cannot listen on 127.0.0.1:{port}: the address is in use; stop what listens there or bind to another"
    )


def test_an_address_of_another_machine_is_told() -> None:
    assert "this machine has no such address" in refusal(parse_bind("192.0.2.1:8080"))


def test_a_name_that_does_not_resolve_is_told() -> None:
    assert "the name nowhere.invalid does not resolve" in refusal(parse_bind("nowhere.invalid:8080"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may bind any port")
def test_a_low_port_without_the_right_is_told() -> None:
    assert "ports below 1024 need the right" in refusal(parse_bind("127.0.0.1:81"))


# --- unix sockets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def unix(path: Path) -> Bind:
    return Bind(path=str(path))


def test_a_unix_socket(path: Path) -> None:
    with listening(unix(path)):
        assert answers(socket.AF_UNIX, str(path))


def test_a_private_socket_is_its_owners_alone_from_the_beginning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    monkeypatch.setattr(os, "chmod", lambda *_: pytest.fail("somebody could have connected before"))
    before = os.umask(0)
    try:
        with listening_privately(unix(path)):
            modes.append(stat.S_IMODE(path.stat().st_mode))
        with listening(unix(path)):
            modes.append(stat.S_IMODE(path.stat().st_mode))
        assert modes == [0o600, 0o777]
        assert os.umask(0) == 0, "the mask is what it was"
    finally:
        os.umask(before)


def test_of_several_the_private_ones_are_private(path: Path) -> None:
    public = path.with_name("public")
    listeners = listen_all([unix(public), unix(path)], [unix(path)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) & 0o100
    for listener in listeners:
        give_up(listener)


def test_a_socket_that_was_left_behind_is_replaced(path: Path) -> None:
    listen(unix(path)).close()
    assert stat.S_ISSOCK(path.stat().st_mode)
    with listening(unix(path)):
        assert answers(socket.AF_UNIX, str(path))


def test_a_socket_in_use_is_left_alone(path: Path) -> None:
    with listening(unix(path)):
        assert "the address is in use" in refusal(unix(path))
        assert answers(socket.AF_UNIX, str(path))


def test_a_socket_whose_queue_is_full_is_in_use(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        assert "the address is in use" in refusal(unix(path))
        assert path.exists()


def test_a_socket_of_another_kind_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert "the address is in use" in refusal(unix(path))
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to nothing"])
def test_what_is_no_socket_is_told_and_left_alone(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent / "nothing")
    text = refusal(unix(path))
    assert text == f"cannot listen on unix:{path}: the path exists and is not a socket; remove it or bind to another"
    assert path.is_symlink() or path.exists()
    if kind == "file":
        assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    assert refusal(unix(path / "x")).endswith(": No such file or directory")


# --- all of them -----------------------------------------------------------------------------------------------------


def test_all_or_none(path: Path) -> None:
    with listening(parse_bind("127.0.0.1:0")) as taken:
        port = taken.getsockname()[1]
        free = free_port()
        with pytest.raises(ListenError, match=str(port)):
            listen_all([parse_bind(f"127.0.0.1:{free}"), unix(path), parse_bind(f"127.0.0.1:{port}")])
    assert not path.exists()
    with listening(parse_bind(f"127.0.0.1:{free}")):
        pass


def test_giving_up_removes_the_path_and_may_be_repeated(path: Path) -> None:
    one, other = listen_all([unix(path), parse_bind("127.0.0.1:0")])
    for listener in (one, other, one):
        give_up(listener)
    assert not path.exists()
    assert (one.fileno(), other.fileno()) == (-1, -1)

"""The listeners of a gateway: all of them or none, and each process keeps its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from devhost_server.processes.listeners import Listeners, address_of
from devhost_server.sockets.listeners import ListenError, give_up
from tests.config.support import loaded
from tests.support import free_port

TEXT = "server: {{bind: ['127.0.0.1:0', 'unix:{folder}/public.sock']}}\nadmin: {{bind: {admin}}}\necho: {echo}\n"


@contextlib.contextmanager
def listening(folder: Path, admin: str = "null", echo: str = "null") -> Iterator[Listeners]:
    listeners = Listeners.listen(loaded(folder, TEXT.format(folder=folder, admin=admin, echo=echo)).settings)
    try:
        yield listeners
    finally:
        for listener in (*listeners.public, *listeners.private):
            give_up(listener)


def test_only_what_is_configured_is_listened_on(tmp_path: Path) -> None:
    with listening(tmp_path) as listeners:
        assert (len(listeners.public), listeners.admin, listeners.echo, listeners.private) == (2, None, None, ())


@pytest.mark.parametrize(("admin", "echo"), [(True, True), (True, False), (False, True)])
def test_each_companion_has_its_own(tmp_path: Path, *, admin: bool, echo: bool) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    bind = addresses[0] if admin else "null"
    with listening(tmp_path, bind, f"{{bind: '{addresses[1]}'}}" if echo else "null") as listeners:
        assert [address_of(listener) for listener in listeners.private] == [
            f"http://{address}" for address, wanted in zip(addresses, (admin, echo), strict=True) if wanted
        ]
        assert [listener in listeners.private for listener in listeners.public] == [False, False]
        assert [listeners.admin is not None, listeners.echo is not None] == [admin, echo]


def test_a_process_closes_those_of_the_others(tmp_path: Path) -> None:
    with listening(tmp_path, f"127.0.0.1:{free_port()}") as listeners:
        listeners.close_but(listeners.admin)
        assert [listener.fileno() < 0 for listener in (*listeners.public, *listeners.private)] == [True, True, False]


def test_one_that_cannot_be_had_leaves_none(tmp_path: Path) -> None:
    with listening(tmp_path) as first:
        other = tmp_path / "other"
        other.mkdir()
        port = first.public[0].getsockname()[1]
        with pytest.raises(ListenError, match=str(port)), listening(other, f"127.0.0.1:{port}"):
            pass
    assert not (other / "public.sock").exists()


def test_addresses_are_written_for_people(tmp_path: Path) -> None:
    with listening(tmp_path) as listeners:
        tcp, unix = listeners.public
        assert address_of(tcp) == f"http://127.0.0.1:{tcp.getsockname()[1]}"
        assert address_of(unix) == f"unix:{tmp_path}/public.sock"

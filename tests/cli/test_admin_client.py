"""The client of the admin listener: addresses, fields and answers."""

import socket
import threading

from tests.cli.fake_admin import Admin, UnixServer, serving
from tests.cli.support import run, write


def test_the_gateway_is_called_by_the_name_that_was_given(admin):
    run("status", "--admin", f"localhost:{admin.address.rpartition(':')[2]}")
    run("status", "--admin", admin.address)
    assert [host.partition(":")[0] for host in admin.hosts] == ["localhost", "127.0.0.1"]


def test_without_a_token_none_is_sent(admin):
    run("status", "--admin", admin.address)
    assert admin.tokens == [None]


def test_a_listener_on_every_address_is_asked_on_loopback(admin):
    write(f"admin: {{bind: '0.0.0.0:{admin.address.rpartition(':')[2]}', token: x}}")
    run("status")
    assert admin.tokens == ["Bearer x"]


def test_a_unix_socket(tmp_path):
    made = Admin()
    with serving(UnixServer(str(tmp_path / "admin.sock"), made.handler())):
        write(f"admin: {{bind: 'unix:{tmp_path}/admin.sock'}}")
        assert "generation 3" in run("status").stdout
        assert "generation 3" in run("status", "--admin", f"unix:{tmp_path}/admin.sock").stdout


def test_what_is_no_http_is_no_gateway():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert "is not a devhost-server" in run("status", "--admin", address, code=1).stderr
        thread.join()

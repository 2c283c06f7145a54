"""Who is believed about what, and which address a request came from."""

import ipaddress
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devhost_server.messages.request_head import RequestFields, parse_request_block
from devhost_server.messages.trust import Audience, Peer, Trust, fold, is_statement, read_node
from tests.messages import near_http
from tests.messages.trusting import PROXY, STRANGER, TRUST


def client_of(*lines: bytes, peer: Peer = PROXY) -> bytes:
    block = b"".join(b"\r\nX-Forwarded-For: " + line for line in lines)
    fields = parse_request_block(block, b"GET", peer)
    assert isinstance(fields, RequestFields)
    return fields.client_address


@pytest.mark.parametrize(
    ("address", "name", "trusted"),
    [
        ("10.1.2.3", b"10.1.2.3", True),
        ("11.1.2.3", b"11.1.2.3", False),
        ("::ffff:10.1.2.3", b"10.1.2.3", True),
        ("::ffff:11.1.2.3", b"11.1.2.3", False),
        ("FD00:0::1", b"fd00::1", True),
        ("fe80::1%eth0", b"fe80::1", False),
        ("", b"127.0.0.1", False),
    ],
)
def test_whom_to_believe(address: str, name: bytes, trusted: bool) -> None:
    peer = TRUST.peer(address)
    assert (peer.address, peer.trusted) == (name, trusted)
    assert bool(peer.believed) is trusted


def test_a_unix_socket_is_trusted_when_this_machine_is() -> None:
    assert Trust((ipaddress.ip_network("127.0.0.0/8"),)).peer("").trusted
    assert not Trust().peer("").trusted


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ([], b"10.0.0.1"),
        ([b"198.51.100.1"], b"198.51.100.1"),
        ([b"6.6.6.6, 198.51.100.1"], b"198.51.100.1"),
        ([b"6.6.6.6, 198.51.100.1, 10.9.9.9,10.0.0.7"], b"198.51.100.1"),
        ([b"6.6.6.6", b"198.51.100.1", b"10.9.9.9"], b"198.51.100.1"),
        ([b"198.51.100.1, fd00::2"], b"198.51.100.1"),
        ([b"198.51.100.1, ::ffff:10.0.0.2"], b"198.51.100.1"),
        ([b"::ffff:198.51.100.1"], b"198.51.100.1"),
        ([b"2001:DB8::0:1"], b"2001:db8::1"),
        ([b"10.3.3.3, 10.2.2.2"], b"10.3.3.3"),
        ([b"6.6.6.6, unknown, 10.2.2.2"], b"10.2.2.2"),
        ([b"6.6.6.6, , 10.2.2.2"], b"10.2.2.2"),
        ([b"_hidden"], b"10.0.0.1"),
        ([b""], b"10.0.0.1"),
        ([b'6.6.6.6, fd00::1%"}, 10.2.2.2'], b"10.2.2.2"),
        ([b"6.6.6.6, 203.0.113.9:51008"], b"203.0.113.9"),
        ([b"6.6.6.6, 203.0.113.9:51008, 10.2.2.2:443"], b"203.0.113.9"),
        ([b"[2001:db8::7]:4711, [fd00::2]:1"], b"2001:db8::7"),
        ([b"[2001:db8::7]"], b"2001:db8::7"),
        ([b"[::ffff:203.0.113.9]:51008"], b"203.0.113.9"),
        ([b'"203.0.113.9:51008"'], b"203.0.113.9"),
        ([b'"[2001:db8::7]:4711"'], b"2001:db8::7"),
        ([b"fe80::1%eth0"], b"fe80::1"),
        ([b"[fe80::1%25eth0]:1"], b"fe80::1"),
        ([b"203.0.113.9:"], b"10.0.0.1"),
        ([b"203.0.113.9:123456"], b"10.0.0.1"),
        ([b'"203.0.113.9'], b"10.0.0.1"),
        ([b"203.0.113.999"], b"10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(chain: list[bytes], client: bytes) -> None:
    assert client_of(*chain) == client
    assert client_of(*chain, peer=STRANGER) == STRANGER.address


@given(st.lists(st.one_of(near_http.values, st.ip_addresses().map(lambda ip: str(ip).encode()), st.just(b"10.0.0.9"))))
@example([b'fd00::1%"'])
def test_a_client_address_is_an_address_whatever_the_list_says(parts: list[bytes]) -> None:
    found = client_of(b", ".join(parts))
    assert str(ipaddress.ip_address(found.decode())).encode() == found
    assert b"%" not in found


@pytest.mark.parametrize("element", [b"10.0.0.9,", b"fd00::1,", b"[,", b'"', b"[fd00::1%", b"0" * 15 + b":", b","])
def test_a_long_list_costs_no_more_than_its_end(element: bytes) -> None:
    """The bound is generous for a busy machine; reading every address of 64 KiB would take thirty times as long."""
    text = element * (2**16 // len(element))
    began = time.process_time()
    for _ in range(20):
        TRUST.client_of(PROXY, text)
    assert (time.process_time() - began) / 20 < 0.004


def test_zones_of_the_peer_do_not_come_back_as_an_address() -> None:
    assert read_node(b"fe80::1%eth0") == ipaddress.ip_address("fe80::1")
    assert read_node(b"1%eth0") is None


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", list(b"!#$%&'*+.^_`|~-"))
def test_any_punctuation_folds(mark: int) -> None:
    assert fold(b"X%cReal%cIP" % (mark, mark)) == b"x-real-ip"


def test_digits_and_letters_do_not_fold() -> None:
    assert fold(b"X-Real-IP2") == b"x-real-ip2"
    assert fold(b"X--Real-IP") == b"x--real-ip"


# Of each kind, what products write (see the comments in `trust.py`).
STATEMENTS = (
    b"X-Forwarded-User X-Auth-Request-Email Remote-User X-Client-Cert-S X-Remote-User X-Remote-Group X-WebAuth-User "
    b"X-Azure-ClientIP Fly-Client-IP X-Envoy-External-Address X-SSL-Client-Verify X-SSL-Client-S-DN SSL-Client-Cert "
    b"Front-End-Https X-Url-Scheme True-Client-IP CF-Connecting-IP X-Cluster-Client-IP X-Client-IP X-Original-URL "
    b"X-Rewrite-URL Proxy-Client-IP WL-Proxy-Client-IP Client-Cert Client-Cert-Chain X-Real-Port X-Script-Name "
    b"X-MS-CLIENT-PRINCIPAL-NAME X-Goog-Authenticated-User-Email Tailscale-User-Login Cf-Access-Jwt-Assertion"
).split()
OTHERS = (
    b"X-Forwarder User-Agent X-Custom Remote-Control X-API-Key X-Auth-Token X-Auth-User X-Remote X-Real X-Scheme-Id "
    b"X-HTTP-Method-Override X-Requested-With X-Original-Filename X-Client-Version Client-Id X-Azure-Ref CF-Ray "
    b"X-SSLv X-Host X-User X-User-ID X-Envoy-Attempt-Count X-Goog-Api-Key X-MS-Date X-Amz-Date"
).split()


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("mark", [b"-", b"_"])
def test_what_states_who_the_client_is_comes_from_trusted_peers_alone(name: bytes, mark: bytes) -> None:
    assert is_statement(fold(name))
    block = b"\r\nHost: a\r\n" + name.replace(b"-", mark) + b": forged"
    for peer in (STRANGER, PROXY):
        fields = parse_request_block(block, b"GET", peer)
        assert isinstance(fields, RequestFields)
        assert b"forged" not in fields.forward


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_is_listed_is_believed_from_a_trusted_peer(name: bytes) -> None:
    listed = Trust(TRUST.networks, frozenset((name.lower(),)))
    for address, passes in (("10.0.0.1", True), ("203.0.113.9", False)):
        fields = parse_request_block(b"\r\nHost: a\r\n" + name + b": said", b"GET", listed.peer(address))
        assert isinstance(fields, RequestFields)
        assert (b": said" in fields.forward) is passes


@pytest.mark.parametrize("name", OTHERS)
def test_other_fields_pass_from_everybody(name: bytes) -> None:
    assert not is_statement(fold(name))
    fields = parse_request_block(b"\r\nHost: a\r\n" + name + b": own", b"GET", STRANGER)
    assert isinstance(fields, RequestFields)
    assert name + b": own" in fields.forward


# --- who may see -----------------------------------------------------------------------------------------------------


def test_an_audience() -> None:
    assert Audience().includes(b"203.0.113.9")
    assert not Audience(everybody=False).includes(b"127.0.0.1")
    some = Audience(everybody=False, networks=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1")))
    assert some.includes(b"10.2.3.4")
    assert some.includes(b"::1")
    assert not some.includes(b"127.0.0.1")

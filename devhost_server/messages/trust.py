"""Who is at the other end of a client connection, and what of that which it says is believed.

Some header fields are not part of a request but a statement about it: whose address it came from, who is logged in,
which host and scheme were asked for. They are true only if somebody wrote them who knows. `Trust` is what the
configuration says about that, and `Peer` what it comes to for one address.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Elements of X-Forwarded-For that are read, from its right end. Chains of proxies are real, but short: the list may
# have as many elements as fit a head, and reading an address costs microseconds.
_HOPS_READ: Final = 32

# An address as proxies write it: with a port (Azure), in brackets, in quotes (RFC 7239 §6), with a zone (RFC 6874).
_NODE: Final = re.compile(
    rb'(?P<quote>"?)(?:\[(?P<literal>[0-9A-Fa-f:.]{2,45})(?:%[A-Za-z0-9._~-]{1,32})?\](?::[0-9]{1,5})?'
    rb"|(?P<four>[0-9.]{7,15})(?::[0-9]{1,5})?"
    rb"|(?P<six>[0-9A-Fa-f:.]{2,45})(?:%[A-Za-z0-9._~-]{1,32})?)(?P=quote)"
)

# --- what is a statement about a request ------------------------------------------------------------------------------

# Every byte of a name that is no letter or digit becomes one and the same in the variables that CGI, WSGI, PHP and
# others make of it (RFC 3875 §4.1.18): X_Real_IP and X!Real!IP are HTTP_X_REAL_IP there.
_FOLDED: Final = bytes(byte if chr(byte).isalnum() and byte < 0x80 else 0x2D for byte in range(256)).lower()

# Each began as what one proxy, balancer or login service says to the applications behind it, which believe it from
# whoever says it. From strangers it would be a claim. Names that an application may have of its own (X-User, X-Host)
# are not among them.
_FAMILIES: Final = (
    b"x-forwarded-", b"x-real-", b"x-remote-",
    # Who is logged in: oauth2-proxy, Grafana, Kong, Azure, Google, AWS, Cloudflare, Tailscale, authentik and others.
    b"x-auth-request-", b"x-webauth-", b"x-authenticated-", b"x-consumer-", b"x-ms-client-principal",
    b"x-goog-authenticated-user-", b"x-goog-iap-", b"x-amzn-oidc-", b"cf-access-", b"tailscale-user-", b"x-authentik-",
    b"x-pomerium-", b"x-vouch-",
    # The client's TLS and certificate.
    b"x-client-cert-", b"x-ssl-", b"ssl-client-", b"x-amzn-mtls-",
    # What networks for content tell of the client.
    b"cloudfront-viewer-", b"x-appengine-", b"x-vercel-ip-",
)  # fmt: skip
OWN_FAMILY: Final = b"x-devhost-"
"""What the gateway says to upstreams and other gateways begins with this."""
_STATEMENTS: Final = frozenset(
    (
        # The address of the client, by the names that proxies, balancers and networks for content give it.
        b"forwarded", b"x-forwarded", b"forwarded-for", b"http-x-forwarded-for", b"client-ip", b"http-client-ip",
        b"x-client-ip", b"true-client-ip", b"x-cluster-client-ip", b"proxy-client-ip", b"wl-proxy-client-ip",
        b"x-originating-ip", b"x-original-forwarded-for", b"x-original-for", b"x-original-remote-addr",
        b"cf-connecting-ip", b"cf-connecting-ipv6", b"cf-pseudo-ipv4", b"cf-ipcountry", b"fastly-client-ip",
        b"fly-client-ip", b"x-azure-clientip", b"x-azure-socketip", b"x-envoy-external-address",
        b"x-nf-client-connection-ip", b"do-connecting-ip", b"x-vercel-forwarded-for", b"incap-client-ip",
        b"x-sucuri-clientip",
        # That the request comes from inside: Envoy takes this for permission.
        b"x-envoy-internal",
        # The host and scheme that were asked for.
        b"x-original-host", b"x-http-host-override", b"x-original-proto", b"x-original-scheme", b"x-scheme",
        b"x-url-scheme", b"front-end-https", b"x-ssl", b"x-https", b"x-arr-ssl", b"fastly-ssl", b"cf-visitor",
        b"cloudfront-forwarded-proto",
        # Another path than the one that was routed, or where it is mounted: Symfony, Zend, IIS, Envoy, gunicorn and
        # many a middleware take it from these.
        b"x-original-url", b"x-original-uri", b"x-original-path", b"x-original-prefix", b"x-original-method",
        b"x-rewrite-url", b"x-envoy-original-path", b"x-script-name", b"script-name", b"path-info",
        # Which files the proxy in front sends for the application: with these, Rack gives away others.
        b"x-sendfile-type", b"x-accel-mapping",
        # Who is logged in, and with which certificate (RFC 9440).
        b"remote-user", b"remote-groups", b"remote-email", b"remote-name", b"x-credential-identifier",
        b"client-cert", b"client-cert-chain", b"x-client-cert", b"x-client-verify", b"x-client-dn", b"x-arr-clientcert",
    )
)  # fmt: skip
MADE_HERE: Final = frozenset((b"forwarded", b"x-real-ip"))
"""What reaches an upstream only as the gateway writes it, whoever the peer is."""


def fold(name: bytes) -> bytes:
    """Return a field name in the form in which servers that make variables of names cannot tell it from others."""
    return name.translate(_FOLDED)


def is_statement(folded: bytes) -> bool:
    """Return whether a folded name is that of a field that only a trusted peer may send on."""
    return folded in _STATEMENTS or folded.startswith(_FAMILIES)


# --- whom to believe --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trust:
    """What the configuration says about peers: who is believed, and about what.

    `headers` are the names, lower-case, of what a trusted peer may say besides X-Forwarded-For and X-Request-ID.
    `decisive` are the folded names of the fields that routes decide on: no alias of theirs is passed on from anybody.
    """

    networks: tuple[Network, ...] = ()
    headers: frozenset[bytes] = frozenset()
    decisive: frozenset[bytes] = frozenset()

    def covers(self, address: Address) -> bool:
        """Return whether a peer at this address is believed."""
        return any(address in network for network in self.networks if network.version == address.version)

    def peer(self, address: str) -> "Peer":
        """Return who is at `address`: "" is a unix socket, trusted when anything on this machine is.

        IPv4-mapped IPv6 addresses count as IPv4, and zones do not count.
        """
        parsed = _unmapped(address.partition("%")[0] or "127.0.0.1")
        believed = self.covers(parsed) if address else any(_is_local(network) for network in self.networks)
        return make_peer(parsed, self, trusted=believed)

    def client_of(self, peer: "Peer", forwarded_for: bytes) -> bytes:
        """Return the address that a request came from: the right-most of the list that is not a trusted proxy's.

        What cannot be read ("unknown", RFC 7239 §6.2) ends the search, and the last address that could be read stands.
        """
        found = peer.address
        for element in reversed(forwarded_for.rsplit(b",", _HOPS_READ)[-_HOPS_READ:]):
            parsed = read_node(element.strip(b" \t"))
            if parsed is None:
                break
            found = str(parsed).encode()
            if not self.covers(parsed):
                break
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """Who is at the other end of a client connection; `trusted` if what it says of others is believed.

    Two are the same only if they are one object, which makes looking up what a peer has sent cheap.
    """

    address: bytes
    trusted: bool
    trust: Trust
    believed: frozenset[bytes]
    """Names, lower-case, of the statements that are believed besides X-Forwarded-For."""
    forwarded: bytes
    """The lines that are added for a peer that is not trusted, up to where the host follows in Forwarded."""


def make_peer(address: Address, trust: Trust, *, trusted: bool) -> Peer:
    """Describe a peer, with the lines that are the same for all that it asks."""
    name = str(address).encode()
    before = b"\r\nX-Forwarded-For: " + name + b"\r\nX-Forwarded-Proto: http" + identity_lines(name, b"http")
    return Peer(name, trusted, trust, trust.headers if trusted else frozenset(), before)


def identity_lines(address: bytes, scheme: bytes) -> bytes:
    """Return X-Real-IP and the beginning of Forwarded (RFC 7239), up to where the host follows in quotes."""
    node = b'"[' + address + b']"' if b":" in address else address  # §6: an IPv6 address is quoted and bracketed
    return b"\r\nX-Real-IP: " + address + b"\r\nForwarded: for=" + node + b";proto=" + scheme + b';host="'


def read_node(text: bytes) -> Address | None:
    """Return the address in an element of X-Forwarded-For, without its port and zone; None if there is none."""
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    try:
        return _unmapped((found["literal"] or found["four"] or found["six"]).decode("ascii"))
    except ValueError:
        return None


def _unmapped(text: str) -> Address:
    parsed = ipaddress.ip_address(text)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else parsed


def _is_local(network: Network) -> bool:
    return network.version == 4 and ipaddress.IPv4Address("127.0.0.1") in network


@dataclass(frozen=True, slots=True)
class Audience:
    """Who may see what is behind the gateway: everybody, or clients at some addresses."""

    everybody: bool = True
    networks: tuple[Network, ...] = ()

    def includes(self, address: bytes) -> bool:
        """Return whether a client at this address belongs to it."""
        parsed = ipaddress.ip_address(address.decode())
        return self.everybody or any(
            parsed in network for network in self.networks if network.version == parsed.version
        )

"""Whether a connection to a target may carry another request: the one table that decides it.

What went over a connection leaves reasons against using it again, as bits of one number; 0 is an ordinary connection,
which goes back to the pool. A reason is noted when what it is about is met: with the head of the request, with the head
of the answer, or with their ends. Reused all the same, a connection could give the next request, which is somebody
else's, an answer that was made for this one, or let a target read the body of this one as a request.
"""

from typing import Final


class Reason:
    """Why a connection is not used again, or not by everybody, or not at once."""

    # What the request was.
    BODY: Final = 1
    UPGRADE: Final = 2
    CREDENTIALS: Final = 4
    # What the answer was.
    CLOSE: Final = 8
    CHALLENGE: Final = 16
    BARE: Final = 32
    # How they ended.
    EARLY: Final = 64
    SURPLUS: Final = 128
    UNFINISHED: Final = 256
    HELD: Final = 512


# Each with the sentence that says it; every bit of `Reason` has one.
SENTENCES: Final = {
    Reason.BODY: "the target may have left the body unread",
    Reason.UPGRADE: "an upgrade was offered and not taken",
    Reason.CREDENTIALS: "a client has authenticated the connection",
    Reason.CLOSE: "the answer ends the connection",
    Reason.CHALLENGE: "the target authenticates connections",
    Reason.BARE: "bytes may follow an answer that has no content",
    Reason.EARLY: "the answer began before the request was sent whole",
    Reason.SURPLUS: "bytes came behind the answer",
    Reason.UNFINISHED: "the exchange was not finished",
    Reason.HELD: "bytes may have come over TLS while its reading was paused",
}

# NTLM and Negotiate authenticate a connection, not a request: it then belongs to one client (RFC 4559 §6).
PRIVATE: Final = Reason.CREDENTIALS | Reason.CHALLENGE
# What does not end a connection by itself: it goes to its owner, or rests first.
_HARMLESS: Final = PRIVATE | Reason.BARE | Reason.HELD
# RFC 9110 §9.3: content means something in these. In others it does not, and there are servers that do not read it.
_READ: Final = frozenset((b"POST", b"PUT", b"PATCH"))


def of_request(
    method: bytes, *, body: bool, upgrade: bool, credentials: bool, bodies_read: bool, challenged: bool
) -> int:
    """Return the reasons that a request leaves on its connection.

    `bodies_read` says whether the target is trusted to read the bodies of POST, PUT and PATCH, and `challenged` that it
    has asked this connection's client to authenticate: such a connection is nobody else's, and a client that has to
    begin anew after each body would never be done.
    """
    reasons = Reason.UPGRADE if upgrade else 0
    if credentials:
        reasons |= Reason.CREDENTIALS
    if body and not challenged and not (bodies_read and method in _READ):
        reasons |= Reason.BODY
    return reasons


def of_answer(*, close: bool, challenge: bool) -> int:
    """Return the reasons that the head of an answer leaves on its connection."""
    reasons = Reason.CLOSE if close else 0
    return reasons | Reason.CHALLENGE if challenge else reasons


def ends(reasons: int) -> bool:
    """Whether these reasons end a connection."""
    return bool(reasons & ~_HARMLESS)


def sentences(reasons: int) -> str:
    """Return what the reasons mean, in words; "" for none."""
    return ", ".join(sentence for bit, sentence in SENTENCES.items() if reasons & bit)

"""What an HTTP/1 connection of a client is doing (RFC 9112 §9), and what may follow what."""

from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """What the connection is doing. From CLOSED on, nothing more is said on it."""

    IDLE = 0  # between two requests, or in the head of the next one
    IN_LINE = 1  # the next request has come, and waits for a later turn of the loop
    BODY = 2  # a request is being answered whose content is still coming
    BUSY = 3  # a request is being answered that has come as a whole
    LINGER = 4  # our side has ended; what the client still sends is read and dropped
    CLOSED = 5
    TUNNEL = 6  # its bytes are somebody else's


class Cue(Enum):
    """What moves it on."""

    WAIT = "too many began in this turn"
    TURN = "its turn has come"
    REQUEST = "a request begins"
    CONTENT = "it has content to come"
    WHOLE = "its content is there, or refused"
    NEXT = "answered, and goes on"
    LAST = "answered, while the client may be sending"
    SWITCH = "101"
    CLOSE = "closed by either side"


TRANSITIONS: Final = {
    (State.IDLE, Cue.WAIT): State.IN_LINE,
    (State.IN_LINE, Cue.TURN): State.IDLE,
    (State.IDLE, Cue.REQUEST): State.BUSY,
    (State.BUSY, Cue.CONTENT): State.BODY,
    (State.BODY, Cue.WHOLE): State.BUSY,
    (State.BUSY, Cue.NEXT): State.IDLE,
    (State.BUSY, Cue.LAST): State.LINGER,
    (State.BODY, Cue.LAST): State.LINGER,
    (State.BUSY, Cue.SWITCH): State.TUNNEL,
    **{(state, Cue.CLOSE): State.CLOSED for state in State},
}

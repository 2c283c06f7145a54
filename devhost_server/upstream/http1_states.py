"""What an HTTP/1 connection to a target is doing (RFC 9112 §9), and what may follow what."""

from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """What the connection is doing."""

    IDLE = 0  # nothing is asked; what comes now was not asked for
    HEAD = 1  # a request is being sent, and no final head has come
    BODY = 2  # content of the answer is coming
    DONE = 3  # the answer is there as a whole, and the connection not given back yet
    TUNNEL = 4  # its bytes are somebody else's
    CLOSED = 5


class Cue(Enum):
    """What moves it on."""

    BEGIN = "a request is sent"
    FINAL_HEAD = "a final head"
    WHOLE = "a final head with all of its content"
    END = "the end of the content"
    DETACH = "given back"
    SWITCH = "101"
    CLOSE = "closed by either side"


TRANSITIONS: Final = {
    (State.IDLE, Cue.BEGIN): State.HEAD,
    (State.HEAD, Cue.FINAL_HEAD): State.BODY,
    (State.HEAD, Cue.WHOLE): State.DONE,
    (State.BODY, Cue.END): State.DONE,
    (State.DONE, Cue.DETACH): State.IDLE,
    (State.HEAD, Cue.SWITCH): State.TUNNEL,
    **{(state, Cue.CLOSE): State.CLOSED for state in State},
}

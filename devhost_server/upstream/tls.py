"""TLS towards targets: one context for all of them, and what a failed handshake means.

A context costs 18 ms and 860 KB, nearly all of it for the certificates of the system's authorities. It is made once a
process, when the first https target is built, and again when those certificates have changed.
"""

import os
import ssl
from functools import lru_cache
from typing import Final

# OpenSSL's X509_V_ERR_*: what is said of them is for the person who runs the target.
_UNKNOWN_AUTHORITY: Final = frozenset((2, 18, 19, 20, 21))
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME: Final = frozenset((62, 64))
# What OpenSSL makes of bytes that are no TLS record, in its several versions.
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")


class Conversation(ssl.SSLObject):
    """What encrypts a connection to a target, and reads the end of one as an end, whoever ended first.

    Once both sides have said close_notify, `ssl` raises an error instead, for which uvloop throws away what it has read
    just before: the last bytes that a target sends into a tunnel whose client has ended its half.
    """

    def read(self, len: int = 1024, buffer: bytearray | None = None) -> bytes | int:  # type: ignore[override] # noqa: A002
        """Read as `ssl.SSLObject` does."""
        try:
            return super().read(len, buffer)
        except ssl.SSLZeroReturnError:
            return b"" if buffer is None else 0


CLOSED: Final = "it closed the connection instead of answering; write http:// if it is a plain server"


def client_context() -> ssl.SSLContext:
    """Return the context for connections to targets; verified against the authorities that the system trusts."""
    paths = ssl.get_default_verify_paths()
    return _context(paths.cafile, _changed(paths.cafile), paths.capath, _changed(paths.capath))


def _changed(path: str | None) -> int:
    try:
        return os.stat(path).st_mtime_ns if path else 0
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _context(_cafile: str | None, _cafile_at: int, _capath: str | None, _capath_at: int) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslobject_class = Conversation
    return context


def explain(error: ssl.SSLError, host: str) -> str:
    """Return what went wrong in a handshake with `host`, as the end of a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, host)
    if any(reason in (error.reason or str(error)) for reason in _NOT_TLS):
        return "it does not speak TLS there; write http:// if it is a plain server"
    if isinstance(error, ssl.SSLEOFError) or "EOF" in (error.reason or str(error)):
        return CLOSED
    return str(error.reason or error).replace("_", " ").lower()


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code in _UNKNOWN_AUTHORITY:
        return f"its certificate is signed by an authority that is not known here ({error.verify_message})"
    if code == _EXPIRED:
        return "its certificate has expired"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; compare the clocks"
    if code in _OTHER_NAME:
        return f"its certificate is for another name than {host}"
    return f"its certificate is not valid: {error.verify_message}"

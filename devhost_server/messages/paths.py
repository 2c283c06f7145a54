"""How the path of a request is read: by us, and by the servers that may stand behind us.

A gateway that guards `/admin` has decided nothing if the server behind it reads another path than the gateway did.
There is one normal form that routes are compared in (`normal_path`). `strict_flaw` finds what some servers make another
segment of, and `other_readings` the paths that remain possible after that.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

_SLASHES: Final = re.compile(rb"/{2,}")
# RFC 3986 §3.3: what follows a semicolon are parameters of the segment. Those of a dot segment stay: servers that know
# no parameters take `..;` for a name, and such a path is for `strict_flaw`.
_PARAMETERS: Final = re.compile(rb"(?<!/\.)(?<!/\.\.);[^/]*")
_RAW_PARAMETERS: Final = re.compile(rb";[^/]*")
_DOTS: Final = re.compile(rb"/\.\.?(?=/|\Z)")
# What some server takes for a slash, for an end of the path, or for a dot segment: a backslash, NUL, dots with
# parameters, and UTF-8 that is longer than it may be (RFC 3629 §3), which old decoders read as ASCII.
_FOLDED: Final = re.compile(rb"[\\\0]|/\.\.?;|[\xc0\xc1][\x80-\xbf]")
# Escapes within escapes are undone this often: one server or proxy behind us may decode, and the next one again.
_DECODINGS: Final = 3


def path_of(target: bytes) -> bytes:
    """Return the path of a request target in origin form."""
    return target.partition(b"?")[0]


def normal_path(target: bytes) -> bytes:
    """Return the path of a request target in the form that routes are compared in.

    The query is cut, percent-escapes are decoded once, parameters of segments are left out, empty segments are merged
    and dot segments resolved (RFC 3986 §5.2.4), so that ``/api/%2e%2e/admin``, ``//admin`` and ``/admin;x`` are judged
    as the ``/admin`` that an upstream may make of them.
    """
    path = path_of(target)
    if b"%" in path:
        path = unquote_to_bytes(path)
    return _normal(path)


def _normal(path: bytes) -> bytes:
    if b";" in path:
        path = _PARAMETERS.sub(b"", path)
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return remove_dot_segments(path) if b"/." in path else path


def remove_dot_segments(path: bytes) -> bytes:
    """Resolve ``.`` and ``..`` segments of an absolute path; climbing above the root stays at the root."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def strict_flaw(target: bytes) -> bool:
    """Return whether some server would make other segments of this path than it seems to have.

    Ordinary parameters (``/a;v=1``), escaped slashes and dot segments that everybody resolves are no flaw; dot segments
    that only a second decoding brings to light are one.
    """
    path = path_of(target)
    if b"%" in path:
        path = unquote_to_bytes(path)
    dots = len(_DOTS.findall(path))
    for _ in range(_DECODINGS):
        if _FOLDED.search(path) is not None:
            return True
        if b"%" not in path:
            return False
        path = unquote_to_bytes(path)
        if len(_DOTS.findall(path)) > dots:
            return True
    return False


def other_readings(target: bytes) -> set[bytes]:
    """Return the paths, in the form of `normal_path`, that servers may read in a target without a `strict_flaw`.

    That are servers which cut parameters off before they decode, which decode twice, and, where there are dot segments,
    servers which do not resolve them, which resolve them without merging slashes, or which know no parameters. None of
    them is needed for an ordinary path, and of the normal form alone there is no other.
    """
    if b"%" not in target and b"/." not in target:
        return set()
    raw = path_of(target)
    decoded = unquote_to_bytes(raw)
    texts = {decoded, unquote_to_bytes(decoded)}
    if b";" in raw:
        texts.add(unquote_to_bytes(_RAW_PARAMETERS.sub(b"", raw)))
    readings = {_normal(text) for text in texts}
    if _DOTS.search(decoded) is not None:
        texts |= {_PARAMETERS.sub(b"", text) for text in texts}
        readings |= {_SLASHES.sub(b"/", text) for text in texts}
        readings |= {_SLASHES.sub(b"/", remove_dot_segments(text)) for text in texts}
        readings |= {remove_dot_segments(_SLASHES.sub(b"/", text)) for text in texts}
    return readings if len(readings) > 1 else set()

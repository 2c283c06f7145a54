"""The files of `tests/conformance/corpus`: where they are, and how their bytes are written."""

import re
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "conformance" / "corpus"
_ESCAPE = re.compile(rb"\\(?:(r)|(n)|(t)|(\\)|x([0-9a-f]{2}))")


def unescape(text: bytes) -> bytes:
    """The bytes a .http file stands for."""
    simple = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}

    def value(found: re.Match[bytes]) -> bytes:
        return bytes([int(found[5], 16)]) if found[5] else simple[next(group for group in found.groups() if group)]

    return _ESCAPE.sub(value, text.replace(b"\n", b""))

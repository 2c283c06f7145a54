r"""Text of strangers, made visible: what cannot be seen is spelled out.

Terminal escapes, C1 controls, separators of lines and bidirectional marks would otherwise rewrite what a reader sees,
and a lone surrogate (which is how ``surrogateescape`` keeps a byte outside UTF-8) cannot be encoded at all.
"""

import orjson


def visible(text: str) -> str:
    r"""Return a text with what cannot be seen spelled out: `\x1b`, `\u202e`, and `\xff` for an undecodable byte."""
    return text if text.isprintable() else "".join([c if c.isprintable() else _spelled(c) for c in text])


def json_string(text: str) -> bytes:
    r"""Return a text as a JSON string that shows nothing invisible; a reader of JSON gets the text as it was.

    A lone surrogate, which JSON cannot carry, becomes the text `\udcff`.
    """
    if text.isprintable():
        return orjson.dumps(text)
    try:
        encoded = orjson.dumps(text)
    except TypeError:
        encoded = orjson.dumps(text.encode("utf-8", "backslashreplace").decode())
    return "".join([c if c.isprintable() else _escaped(c) for c in encoded.decode()]).encode()


def visible_json(encoded: bytes) -> bytes:
    """Return a JSON document with everything invisible in its strings escaped; it must have no line breaks."""
    text = encoded.decode()
    return encoded if text.isprintable() else "".join([c if c.isprintable() else _escaped(c) for c in text]).encode()


def _spelled(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _escaped(character: str) -> str:
    """Return a character as JSON escapes it (RFC 8259 §7): beyond 16 bits as two."""
    units = character.encode("utf-16-be")
    return "".join([f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)])

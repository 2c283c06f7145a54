"""What must never be shown, and what stands in its place: the one module that decides it for every output.

Two things make a value secret: that it came out of a file that is no configuration (``${file:…}``), which loading
remembers as a path, and a key that says so.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import unquote

MASK: Final = "********"

# Parameters of a URL, as the access log and error pages show them: both are read by more people than a request is meant
# for, and rather hide a harmless value than show one that opens a door.
PARAMETER_WORDS: Final = r"token|secret|passw|pwd|api[_-]?key|signature|credential|session|jwt|auth|bearer|csrf"
"""A parameter whose name holds one of these is a secret; a pattern without groups."""
PARAMETER_NAMES: Final = r"sig|sas|sid|pass|key|code"
"""Names that are a secret's if they are just this."""

SHOWN_BYTES: Final = 2048
"""Bytes of a client's text that any output looks at; the rest is cut off before anything is searched in it."""

_PARAMETER_MASK: Final = "***"
_PARAMETER: Final = re.compile(f"{PARAMETER_WORDS}|\\A(?:{PARAMETER_NAMES})\\Z", re.IGNORECASE)
# Searched in lower case: ignoring case takes three times as long, and this is done for every URL with a parameter.
_HINT: Final = re.compile(f"{PARAMETER_WORDS}|%|[?&;#=](?:{PARAMETER_NAMES})=")
_HINT_BYTES: Final = re.compile(_HINT.pattern.encode())
# Each also in the encoded spellings that one decoding or more turns into it: URLs are carried inside of URLs. All of
# them are linear: a run of escapes can be entered only at its per cent sign, and an authority only behind its slashes.
_ESCAPED: Final = "%(?:25)*"
_DELIMITER: Final = re.compile(f"([?&;#]|{_ESCAPED}(?:3[Ff]|26|3[Bb]|23))")
_EQUALS: Final = re.compile(f"=|{_ESCAPED}3[Dd]")
_AT: Final = re.compile(f"@|{_ESCAPED}40")
_SLASHES: Final = f"((?:/|{_ESCAPED}2[Ff]){{2}})"
_IN_AUTHORITY: Final = f"(?:(?!{_ESCAPED}(?:2[Ff]|3[Ff]|23))[^/?#])*"
_USER: Final = re.compile(f"{_SLASHES}{_IN_AUTHORITY}(?:{_AT.pattern})")
_OPEN_AUTHORITY: Final = re.compile(f"{_SLASHES}{_IN_AUTHORITY}\\Z")
_BLANK: Final = re.compile(r"\s")
# How often a name is decoded before it is judged, and how many names are: what follows further ones is hidden.
_DECODINGS: Final = 3
_JUDGED: Final = 64
_ESCAPE: Final = re.compile("%[0-9A-Fa-f]{2}")

_SECRET_KEY: Final = re.compile(
    r"(?:^|[-_])(?:token|password|passwd|secret|authorization|cookie|api[-_]?key)(?:$|[-_])", re.IGNORECASE
)

# Where the keys are the names of people, and the values their tokens.
_TOKENS: Final = ("admin", "tokens")


def names_secret(path: tuple[str | int, ...]) -> bool:
    """Return whether the key of a value, or of the list that it is in, says that it is a secret."""
    if path[:2] == _TOKENS and len(path) > len(_TOKENS):
        return True
    key = next((key for key in reversed(path) if isinstance(key, str)), "")
    return _SECRET_KEY.search(key) is not None


def masked(
    value: Any, secrets: Collection[tuple[str | int, ...]] = (), path: tuple[str | int, ...] = (), *, hide: bool = False
) -> Any:
    """Copy what stands at `path` of a configuration with every secret replaced by `MASK`.

    All below a path in `secrets` is secret, and with `hide` all there is. ``null`` is no secret.
    """
    hide = hide or path in secrets
    if isinstance(value, Mapping):
        return {key: masked(child, secrets, (*path, key), hide=hide) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [masked(child, secrets, (*path, index), hide=hide) for index, child in enumerate(value)]
    return MASK if value is not None and (hide or names_secret(path)) else value


# -- what strangers wrote ---------------------------------------------------------------------------------------------


def shortened(raw: bytes) -> bytes:
    """Return the first `SHOWN_BYTES` of a client's text, less a character of UTF-8 that would be cut in two."""
    if len(raw) <= SHOWN_BYTES:
        return raw
    end = SHOWN_BYTES
    while end > SHOWN_BYTES - 3 and raw[end] & 0xC0 == 0x80:
        end -= 1
    return raw[:end]


def may_hold_secret(raw: bytes) -> bool:
    """Return whether `without_secrets` might mask anything of a text: quick, as nearly all that is logged has none."""
    return b"@" in raw or ((b"=" in raw or b"%" in raw) and _HINT_BYTES.search(raw.lower()) is not None)


def without_secrets(text: str, *, cut: bool = False, prose: bool = False) -> str:
    """Mask the values of query parameters that are called like secrets, and the user of a URL.

    `cut` says that the text once went on: a user whose @ may have been cut off is masked too. In `prose` a value ends
    at a blank; elsewhere only ``&`` and ``#`` end it, and a semicolon may belong to it.
    """
    if ("=" in text or ("%" in text and _EQUALS.search(text))) and _HINT.search(text.lower()):
        text = _without_parameters(text, prose=prose)
    if "@" in text or ("%" in text and _AT.search(text)):
        text = _USER.sub(rf"\1{_PARAMETER_MASK}@", text)
    return _OPEN_AUTHORITY.sub(rf"\1{_PARAMETER_MASK}", text) if cut else text


def _without_parameters(text: str, *, prose: bool) -> str:
    first, *pieces = _DELIMITER.split(text)
    shown = [first]
    hiding = False
    left = _JUDGED
    for delimiter, piece in zip(pieces[::2], pieces[1::2], strict=True):
        value = piece
        if not hiding or delimiter in "&#":
            begin, left = _secret_value(piece, left)
            hiding = begin < len(piece)
            shown.append(delimiter + piece[:begin] + (_PARAMETER_MASK if hiding else ""))
            value = piece[begin:]
        blank = _BLANK.search(value) if hiding and prose else None
        if blank is not None:
            shown.append(value[blank.start() :])
            hiding = False
    return "".join(shown)


def _secret_value(parameter: str, most: int) -> tuple[int, int]:
    """Return where the value of a secret begins in ``name=value``, which may hold further ones; its end if nowhere.

    Of the names at most `most` are judged, and what follows another is taken for a secret; how many are left to judge
    is returned too.
    """
    begin = 0
    for equals in _EQUALS.finditer(parameter):
        if not most or _PARAMETER.search(_decoded(parameter[begin : equals.start()])):
            return equals.end(), most
        begin = equals.end()
        most -= 1
    return len(parameter), most


def _decoded(name: str) -> str:
    for _ in range(_DECODINGS):
        if _ESCAPE.search(name) is None:
            break
        name = unquote(name)
    return name

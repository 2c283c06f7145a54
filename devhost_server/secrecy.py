"""What must never be shown, and what stands in its place: the one module that decides it for every output.

Two things make a value secret: that it came out of a file that is no configuration (``${file:…}``), which loading
remembers as a path, and a key that says so.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

MASK: Final = "********"

# Parameters of a URL, as the access log and error pages show them: both are read by more people than a request is meant
# for, and rather hide a harmless value than show one that opens a door.
PARAMETER_WORDS: Final = r"token|secret|passw|pwd|api[_-]?key|signature|credential|session|jwt|auth|bearer|csrf"
"""A parameter whose name holds one of these is a secret; a pattern without groups."""
PARAMETER_NAMES: Final = r"sig|sas|sid|pass|key|code"
"""Names that are a secret's if they are just this."""

_SECRET_KEY: Final = re.compile(
    r"(?:^|[-_])(?:token|password|passwd|secret|authorization|cookie|api[-_]?key)(?:$|[-_])", re.IGNORECASE
)

# Where the keys are the names of people, and the values their tokens.
_TOKENS: Final = ("admin", "tokens")


def names_secret(path: tuple[str | int, ...]) -> bool:
    """Tell whether the key that a value stands under, be it in a list there, says that it is a secret."""
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

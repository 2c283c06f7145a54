"""What must never be shown, and what stands in its place: the one module that decides it for every output.

Two things make a value secret: that it came out of a file that is no configuration (``${file:…}``), which loading
remembers as a path, and a key that says so.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

MASK: Final = "********"

_SECRET_KEY: Final = re.compile(
    r"(?:^|[-_])(?:token|password|passwd|secret|authorization|cookie|api[-_]?key)(?:$|[-_])", re.IGNORECASE
)


def names_secret(path: tuple[str | int, ...]) -> bool:
    """Tell whether the key that a value stands under, be it in a list there, says that it is a secret."""
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

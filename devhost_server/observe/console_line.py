"""A line of the access log for people: what a developer looks for first, in the order in which they look."""

import os
import time
from typing import TYPE_CHECKING, Final

from devhost_server.observe.access_line import LINE_BYTES, shown_text
from devhost_server.visible import visible

if TYPE_CHECKING:
    from devhost_server.exchange import Exchange

# Colours of the classes of statuses (ECMA-48 §8.3.117): green, cyan, yellow, red; what is beside the point is dim.
_COLOURS: Final = {2: "32", 3: "36", 4: "33", 5: "31"}
_DIM: Final = "2"
_UNITS: Final = ("kB", "MB", "GB", "TB", "PB")
_TEXT: Final = 1500
"""Characters that a host or target may take: at four bytes each, both and the rest fit into a line."""
_HOST: Final = 255


class ConsoleLines:
    """Lines for a terminal, coloured unless `NO_COLOR` is set (no-color.org) or the terminal is a dumb one."""

    def __init__(self) -> None:
        self._coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, x: "Exchange") -> bytes:
        """Return the line of an exchange that is over."""
        now = time.time()
        clock = f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03d}"
        status = self._paint(str(x.status), _COLOURS.get(x.status // 100, ""))
        begin = f"{self._paint(clock, _DIM)} {status} {_text(x.method, _HOST) or '-':<4} "
        end = self._way(x) + f"  {_duration(x.seconds)}  {_size(x.bytes_out)}"
        if x.fault is not None:
            end += "  " + self._paint(x.fault.failure.flag, "31")
        room = LINE_BYTES - len(begin.encode()) - len(end.encode()) - 1
        address = _text(x.host, _HOST) + _text(x.target_path, _TEXT)
        return f"{begin}{_fitted(address, room)}{end}\n".encode()

    def _way(self, x: "Exchange") -> str:
        if x.route is None:
            return ""
        return self._paint(f"  {x.route.name}" + ("" if x.target is None else f" → {x.target.address}"), _DIM)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured and colour else text


def _text(raw: bytes, most: int) -> str:
    text = visible(shown_text(raw))
    return text if len(text) <= most else text[:most] + "…"


def _fitted(text: str, room: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= room else encoded[: room - len("…".encode())].decode("utf-8", "ignore") + "…"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    thousands = min((len(str(count)) - 1) // 3, len(_UNITS))
    return f"{count / 1000**thousands:.1f} {_UNITS[thousands - 1]}"

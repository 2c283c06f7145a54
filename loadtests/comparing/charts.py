"""Small SVG charts, drawn by hand: readable on light and dark pages, and the same bytes for the same figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
_STYLE = """<style>
svg { font: 13px system-ui, sans-serif; }
text { fill: #24292f; } .quiet { fill: #57606a; } .title { font-weight: 600; font-size: 15px; }
.axis { stroke: #8c959f; } .grid { stroke: #d0d7de; stroke-dasharray: 2 3; }
.c0 { fill: #0969da; stroke: #0969da; } .c1 { fill: #6e7781; stroke: #6e7781; } .c2 { fill: #bf8700; stroke: #bf8700; }
.c3 { fill: #1a7f37; stroke: #1a7f37; } .c4 { fill: #8250df; stroke: #8250df; } .line { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; } .axis { stroke: #656c76; } .grid { stroke: #3d444d; }
  .c0 { fill: #4493f8; stroke: #4493f8; } .c1 { fill: #9198a1; stroke: #9198a1; }
  .c2 { fill: #d29922; stroke: #d29922; } .c3 { fill: #3fb950; stroke: #3fb950; }
  .c4 { fill: #ab7df8; stroke: #ab7df8; } .line { fill: none; }
}
</style>"""
_COLOURS = 5
_LABELS, _VALUES = 120, 110  # room left and right of bars
_ROW, _HEAD = 24, 52
_CUT = 12.0
"""A bar more than this many times the shortest is cut, or the others could not be told apart."""


@dataclass(frozen=True)
class Bar:
    """One bar; `first` picks it out."""

    label: str
    value: float
    first: bool = False


@dataclass(frozen=True)
class Line:
    """One line of points."""

    label: str
    points: tuple[tuple[float, float], ...]


def bars(title: str, unit: str, rows: Sequence[Bar], labels: int = _LABELS) -> str:
    """Horizontal bars in the order given, each with its value; one that is cut ends in a gap."""
    height = _HEAD + _ROW * len(rows) + 8
    body = [_text(12, 22, title, "title"), _text(12, 40, unit, "quiet")]
    most = min(max((row.value for row in rows), default=1), _CUT * min((row.value for row in rows), default=1)) or 1
    room = WIDTH - labels - _VALUES
    for number, row in enumerate(rows):
        y = _HEAD + number * _ROW
        length = room * min(row.value / most, 1)
        colour = "c0" if row.first else "c1"
        body.append(_text(labels - 8, y + 14, row.label, anchor="end"))
        body.append(f'<rect class="{colour}" x="{labels}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 8}"/>')
        cut = row.value > most
        if cut:
            body.append(_text(labels + room - 30, y + 15, "//", "title"))
        body.append(_text(labels + length + 6, y + 14, number_text(row.value)))
    return _svg(height, title, body)


def lines(title: str, axis: str, unit: str, rows: Sequence[Line]) -> str:
    """Lines over a logarithmic axis from left to right and a linear one, from nought, upwards."""
    height, left, top, right, bottom = 320, 60, 60, 150, 46
    xs = sorted({x for row in rows for x, _ in row.points})
    top_value = nice(max((y for row in rows for _, y in row.points), default=1))
    plane = _Plane(left, WIDTH - right, height - bottom, top, xs[0] if xs else 1, xs[-1] if xs else 1, top_value)
    body = [_text(12, 22, title, "title"), _text(12, 40, f"{unit}, over {axis}", "quiet")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = plane.y(top_value * share)
        body.append(f'<line class="{"grid" if share else "axis"}" x1="{left}" x2="{WIDTH - right}" y1="{y}" y2="{y}"/>')
        body.append(_text(left - 8, y + 4, number_text(top_value * share), "quiet", anchor="end"))
    body += [_text(plane.x(x), height - bottom + 20, f"{x:,.0f}", "quiet", anchor="middle") for x in xs]
    ends = spread_out([plane.y(row.points[-1][1]) for row in rows if row.points], 16)
    for number, row in enumerate(row for row in rows if row.points):
        body += _line(row, plane, f"c{number % _COLOURS}", ends[number])
    return _svg(height, title, body)


@dataclass(frozen=True)
class _Plane:
    left: float
    right: float
    bottom: float
    top: float
    first: float
    last: float
    most: float

    def x(self, value: float) -> float:
        span = math.log(self.last / self.first)
        share = math.log(value / self.first) / span if span else 0.5
        return round(self.left + 12 + (self.right - self.left - 24) * share, 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * value / self.most, 1)


def _line(row: Line, plane: _Plane, colour: str, label_y: float) -> list[str]:
    places = [(plane.x(x), plane.y(y)) for x, y in row.points]
    path = " ".join(f"{x},{y}" for x, y in places)
    dots = [f'<circle class="{colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in places]
    label = _text(places[-1][0] + 10, label_y + 4, f"{row.label} {number_text(row.points[-1][1])}")
    return [f'<polyline class="{colour} line" points="{path}"/>', *dots, label]


def spread_out(places: Sequence[float], distance: float) -> list[float]:
    """Move labels down until each is `distance` from the one above it; in the order given."""
    moved = list(places)
    least = -math.inf
    for index in sorted(range(len(places)), key=places.__getitem__):
        moved[index] = max(places[index], least)
        least = moved[index] + distance
    return moved


def nice(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten that is not below: its quarters are short numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= value)


def number_text(value: float) -> str:
    """A figure with as many digits as it is worth: three."""
    worth = float(f"{value:.3g}")
    return f"{worth:,.0f}" if abs(worth) >= 1000 else f"{worth:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, title: str, body: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, _STYLE, *body, "</svg>", ""])

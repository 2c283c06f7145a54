"""Tables for people."""

from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

import click

from devhost_server.units import printable


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = None, aside: Collection[str] = ()
) -> str:
    """Return a table as text. Columns that would be empty are left out; the last one is not padded.

    A cell may be a list. If the table is wider than `width` columns, the items of a list stand below one another; if it
    still is, the columns in `aside` are written below each row.
    """
    cells = [[_items(cell) for cell in row] for row in rows]
    used = [column for column in range(len(head)) if not cells or any(any(row[column]) for row in cells)]
    joined = [[[", ".join(cell)] for cell in row] for row in cells]
    below: list[list[str]] = [[] for _ in cells]
    blocks = _laid_out(head, used, joined)
    if width is not None and _widest(blocks) > width:
        blocks = _laid_out(head, used, cells)
    if width is not None and _widest(blocks) > width and aside:
        below = [_notes(head, used, row, aside) for row in joined]
        used = [column for column in used if head[column] not in aside]
        blocks = _laid_out(head, used, joined)
        blocks = blocks if _widest(blocks) <= width else _laid_out(head, used, cells)
    lines = [line for block, notes in zip(blocks[1:], below, strict=True) for line in (*block, *notes)]
    return "\n".join([click.style(blocks[0][0], bold=True), *lines])


def _items(cell: object) -> list[str]:
    if isinstance(cell, list | tuple):
        return [printable(str(item)) for item in cell]
    return ["" if cell is None else printable(str(cell))]


def _laid_out(head: Sequence[str], used: Sequence[int], rows: Iterable[Sequence[Sequence[str]]]) -> list[list[str]]:
    """Return the lines of the head and of each row. A cell may have several lines."""
    shown: list[list[Sequence[str]]] = [
        [[head[column].upper()] for column in used],
        *([row[column] for column in used] for row in rows),
    ]
    widths = [max(len(line) for cell in column for line in (*cell, "")) for column in zip(*shown, strict=True)]
    return [
        [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in zip_longest(*(cell or [""] for cell in row), fillvalue="")
        ]
        for row in shown
    ]


def _widest(blocks: Iterable[Iterable[str]]) -> int:
    return max(len(line) for block in blocks for line in block)


def _notes(head: Sequence[str], used: Sequence[int], row: Sequence[Sequence[str]], aside: Collection[str]) -> list[str]:
    return [f"    {head[column]}: {row[column][0]}" for column in used if head[column] in aside and row[column][0]]

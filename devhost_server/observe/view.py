"""What the scoreboard and the published documents say together, for those who read and never write: the admin listener.

The scoreboard holds numbers without names, the published configuration says which block belongs to which name. A
`Reader` keeps the last configuration it could read; a `View` of it is consistent in its names. Its numbers are read
cell by cell while workers write them, so two numbers may be some microseconds apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from devhost_server.secrecy import masked
from devhost_server.shared.board import (
    ROUTE_CODES,
    TARGET_CODES,
    Board,
    RouteCell,
    Scoreboard,
    Slot,
    TargetCell,
    WorkerState,
)
from devhost_server.shared.publication import Document, Publication

# Requests that no route answered are counted in a block of their own; no configuration can name a route like this.
NO_ROUTE: Final = "-"

Codes = dict[tuple[str, int], int]
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """The published configuration, and which block of the scoreboard each of its names owns.

    `settings` has secrets in it; `shown` is the same without them, and all that any answer may be made from.
    Names that a reload has removed may still own a block: what they counted is exported until the block is given away.
    """

    generation: int = 0
    env: str = ""
    instance: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    routes: Mapping[str, int] = field(default_factory=dict)
    upstreams: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: bytes) -> "Served":
        """Read the snapshot document; a target's block is listed under ``UPSTREAM URL``."""
        document = orjson.loads(text)
        blocks = document["blocks"]
        targets = {(name, url): at for key, at in blocks["targets"].items() for name, _, url in [key.partition(" ")]}
        settings = document["settings"]
        secrets = frozenset(map(tuple, settings.pop("secrets")))
        return cls(
            generation=document["generation"],
            env=document["env"],
            instance=document["instance"],
            settings=settings,
            shown=masked(settings, secrets),
            routes=blocks["routes"],
            upstreams=blocks["upstreams"],
            targets=targets,
        )

    @property
    def listeners(self) -> list[str]:
        """The public addresses, in the order of their cells in a worker's row."""
        return self.settings["server"]["bind"] if self.settings else []


@dataclass(frozen=True, slots=True)
class View:
    """One configuration with the rows of every slot that a worker has ever held, numbered by slot."""

    scoreboard: Scoreboard
    served: Served
    rows: Mapping[int, memoryview]

    def board(self, cell: Board) -> int:
        """Read a cell of the board row."""
        return self.scoreboard.board[cell]

    def routes(self) -> Iterator[tuple[Labels, int]]:
        """Return each route's name and the index of its first cell."""
        return (((name,), self.scoreboard.route_at(block)) for name, block in self.served.routes.items())

    def upstreams(self) -> Iterator[tuple[Labels, int]]:
        """Return each upstream's name and the index of its first cell."""
        return (((name,), self.scoreboard.upstream_at(block)) for name, block in self.served.upstreams.items())

    def targets(self) -> Iterator[tuple[Labels, int]]:
        """Return each target's upstream and URL, and the index of its first cell."""
        return ((key, self.scoreboard.target_at(block)) for key, block in self.served.targets.items())

    def total(self, cell: int) -> int:
        """Add one cell up over the rows."""
        return sum([row[cell] for row in self.rows.values()])

    def totals(self, cell: int, count: int) -> list[int]:
        """Add `count` neighbouring cells up over the rows."""
        columns = zip(*[row[cell : cell + count] for row in self.rows.values()], strict=True)
        return [sum(column) for column in columns] or [0] * count

    def route_codes(self, at: int) -> Codes:
        """Return the counts of a route by (method, status), and by class where the table had no room."""
        return self.scoreboard.codes(at + RouteCell.CODES, ROUTE_CODES)

    def target_codes(self, at: int) -> Codes:
        """Return the counts of a target by (method, status)."""
        return self.scoreboard.codes(at + TargetCell.CODES, TARGET_CODES)

    def failing_since(self, at: int) -> int | None:
        """Return since when a target fails: Unix time in microseconds, None while it works or was never tried.

        Each worker has its own experience. A target counts as failing as long as the last try of any worker failed:
        some requests fail then, and that is what a reader looks for. The first failure of all is given.
        """
        return min((since for row in self.rows.values() if (since := row[at + TargetCell.FAILING_SINCE])), default=None)

    def was_tried(self, at: int) -> bool:
        """Return whether any worker has ever used a target."""
        return any(self.totals(at, TargetCell.CODES + 1))

    def workers(self) -> dict[int, memoryview]:
        """Return the rows of the workers that live, by slot."""
        return {slot: row for slot, row in self.rows.items() if row[Slot.STATE] != WorkerState.EMPTY}

    def is_serving(self) -> bool:
        """Return whether some worker is ready and has a configuration."""
        return any(row[Slot.STATE] == WorkerState.READY and row[Slot.GENERATION] > 0 for row in self.rows.values())

    def is_draining(self) -> bool:
        """Return whether the gateway is stopping."""
        return self.board(Board.DRAINING) != 0


class Reader:
    """Makes views, and reads the documents again only when they have changed."""

    def __init__(self, scoreboard: Scoreboard, publication: Publication) -> None:
        self._scoreboard = scoreboard
        self._publication = publication
        self._served = Served()
        self._seen = (0, 0, 0)

    def __repr__(self) -> str:
        return f"<Reader generation={self._served.generation}>"

    def view(self) -> View:
        """Return what is served now."""
        self._refresh()
        scoreboard = self._scoreboard
        slots = range(scoreboard.capacity.slots)
        rows = {slot: row for slot in slots if (row := scoreboard.row(slot))[Slot.PID] or row[Slot.RESTARTS]}
        return View(scoreboard, self._served, rows)

    def _refresh(self) -> None:
        at, size, check = self._scoreboard.board[Board.SNAPSHOT_AT : Board.SNAPSHOT_SUM + 1]
        if (at, size, check) == self._seen:
            return
        # None means that the master is writing at this moment: the last one serves until the next call.
        if (text := self._publication.read(Document.SNAPSHOT)) is not None:
            self._served = Served.parse(text)
            self._seen = (at, size, check)

    def report(self) -> dict[str, Any] | None:
        """Return the report of the last reload; None if there was none, or it is being written at this moment."""
        text = self._publication.read(Document.REPORT)
        report: dict[str, Any] | None = None if text is None else orjson.loads(text)
        return report

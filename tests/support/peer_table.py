"""The table of cases and proxies: `python -m tests.support.peer_table OUT.md nginx=FILE haproxy=FILE caddy=FILE …`.

Each FILE is what `pytest tests/conformance --peer NAME --case-report FILE` wrote.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = Mapping[str, Mapping[str, Any]]
_MEANING = {
    "FR": "request framing and smuggling",
    "CH": "chunked coding and trailers",
    "HH": "hop-by-hop fields",
    "XF": "forwarded fields",
    "HO": "Host and target form",
    "ME": "methods",
    "IN": "interim answers",
    "LI": "limits",
    "SL": "slow clients",
    "UF": "upstream faults",
    "RT": "retries and the pool",
    "CD": "client disconnects",
    "WS": "upgrades",
    "ST": "streaming",
    "EN": "compressed bodies",
    "HD": "header fidelity",
    "NB": "no body, ranges, conditions",
    "UR": "raw path and query",
    "DR": "drain",
    "RL": "reload",
    "PR": "process faults",
    "MT": "metrics and logs",
}


@dataclass(frozen=True)
class Verdict:
    """How many of a case's tests a proxy passed."""

    passed: int
    total: int

    def __str__(self) -> str:
        if not self.total:
            return ""
        if self.passed == self.total:
            return "yes"
        return f"{self.passed} of {self.total}" if self.passed else "no"


def verdict(report: Report, case: str) -> Verdict:
    """A case passes when all of its tests do."""
    outcomes = list(report.get(case, {}).get("tests", {}).values())
    return Verdict(outcomes.count("passed"), len(outcomes))


def title(nodes: list[str]) -> str:
    """What the case's tests are called, in words."""
    names = []
    for node in nodes:
        corpus = re.search(r"\[[A-Z]{2}-\d{2} \d+-(.*)\]", node)
        name = corpus[1] if corpus else node.split("::")[1].split("[")[0].removeprefix("test_")
        names.append(name.replace("-", " ").replace("_", " "))
    return "; ".join(dict.fromkeys(names))


def table(reports: Mapping[str, Report]) -> str:
    """The whole page."""
    cases = sorted({case for report in reports.values() for case in report})
    lines = ["| case | level | tests | " + " | ".join(reports) + " |", "|---" * (3 + len(reports)) + "|"]
    for case in cases:
        has = [report[case] for report in reports.values() if case in report]
        nodes = sorted({node for one in has for node in one["tests"]})
        level = "SHOULD" if any(one["should"] for one in has) else "MUST"
        verdicts = " | ".join(str(verdict(report, case)) for report in reports.values())
        lines.append(f"| {case} | {level} | {title(nodes)} | {verdicts} |")
    return "\n".join([*summary(reports), "", *lines, ""])


def summary(reports: Mapping[str, Report]) -> list[str]:
    """Cases passed whole by family and proxy."""
    lines = ["| family | " + " | ".join(reports) + " |", "|---" * (1 + len(reports)) + "|"]
    for family, meaning in _MEANING.items():
        if any(case.startswith(family) for report in reports.values() for case in report):
            lines.append(
                f"| {family} {meaning} | " + " | ".join(score(report, family) for report in reports.values()) + " |"
            )
    lines.append("| **all** | " + " | ".join(score(report, "") for report in reports.values()) + " |")
    return lines


def score(report: Report, family: str) -> str:
    """Passed and all cases of a family that the proxy was asked."""
    verdicts = [verdict(report, case) for case in report if case.startswith(family)]
    return f"{sum(one.passed == one.total for one in verdicts)} of {len(verdicts)}" if verdicts else ""


def main(arguments: list[str]) -> None:
    """Write the page."""
    out, *named = arguments
    reports = {name: json.loads(Path(file).read_text()) for name, file in (pair.split("=", 1) for pair in named)}
    Path(out).write_text(table(reports))


if __name__ == "__main__":
    main(sys.argv[1:])

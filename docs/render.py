"""The parts of the documentation that are made from the code: `python docs/render.py` writes them anew.

A part stands between `<!-- made: NAME -->` and `<!-- end -->`. tests/test_docs.py checks that all of them are current.
docs/configuration.md and docs/metrics.md are made whole, by modules of their own.
"""

import configparser
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devhost_server import failures
from devhost_server.doors import http1_states as client_side
from devhost_server.failures import FLAGS, Failure, Retry
from devhost_server.processes.drain import TRANSITIONS, Phase
from devhost_server.states import diagram
from devhost_server.upstream import http1_states as target_side

ROOT: Final = Path(__file__).resolve().parent.parent
_PART: Final = re.compile(r"(<!-- made: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_RETRIES: Final = {Retry.NEVER: "no", Retry.SAFE: "yes", Retry.REPLAY: "if idempotent"}


def errors() -> str:
    """Give every row of the table in failures.py, in its order."""
    rows = [(name, row) for name, row in vars(failures).items() if isinstance(row, Failure)]
    lines = ["| name | flag | status | `Proxy-Status` error | blame | tried again | what is said |", "|---" * 7 + "|"]
    for name, row in rows:
        cells = (f"`{name}`", f"`{row.flag}`", row.status, f"`{row.error}`", row.blame.value, _RETRIES[row.retry])
        lines.append("| " + " | ".join(map(str, (*cells, row.title))) + " |")
    unused = [f"`{flag}`" for flag in FLAGS if flag not in {row.flag for _, row in rows}]
    if unused:
        lines += ["", f"Reserved, and given by nothing in this version: {', '.join(unused)}."]
    return "\n".join(lines)


def drain() -> str:
    """Draw the transitions of drain.py."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.SERVING.value}"]
    lines += [f"    {old.value} --> {new.value}: {cue.value}" for (old, cue), new in TRANSITIONS.items()]
    return "\n".join([*lines, f"    {Phase.STOPPED.value} --> [*]", "```"])


def client_connection() -> str:
    """Draw what a client's connection does."""
    return "\n".join(["```mermaid", diagram(client_side.TRANSITIONS, client_side.State.IDLE), "```"])


def target_connection() -> str:
    """Draw what a connection to a target does."""
    return "\n".join(["```mermaid", diagram(target_side.TRANSITIONS, target_side.State.IDLE), "```"])


def layers() -> str:
    """List the layers of the import contract, the highest first."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    rows = contracts["importlinter:contract:one-way"]["layers"].split("\n")
    return "\n".join(["```", *(row.strip().replace(" | ", "   ") for row in rows if row.strip()), "```"])


def families() -> str:
    """Give the first table of the conformance report: cases passed whole, by family."""
    return _peers().split("\n\n")[0]


def unmet() -> str:
    """Give the cases of the report that this gateway does not pass."""
    head, rule, *rows = _peers().split("\n\n")[1].strip().split("\n")
    mine = [row for row in rows if row.split(" | ")[3] != "yes"]
    return "\n".join([head, rule, *mine]) if mine else "None."


def _peers() -> str:
    return (ROOT / "tests" / "conformance" / "peers.md").read_text()


PARTS: Final[dict[str, Callable[[], str]]] = {
    "errors": errors,
    "drain": drain,
    "client-connection": client_connection,
    "target-connection": target_connection,
    "layers": layers,
    "families": families,
    "unmet": unmet,
}


def rendered(text: str) -> str:
    """Give a page with its parts made anew. A name that is not in `PARTS` is a KeyError."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


def pages() -> list[Path]:
    """Find the pages that have parts."""
    return [page for page in sorted((ROOT / "docs").glob("*.md")) if _PART.search(page.read_text())]


def main() -> None:
    """Write every page whose parts have changed."""
    for page in pages():
        text = page.read_text()
        if (new := rendered(text)) != text:
            page.write_text(new)
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()

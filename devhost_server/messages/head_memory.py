"""What request lines and field blocks said that came before, shared by all client connections of a worker.

Most heads repeat: a browser's, a health check's, another service's differ in little more than the path. What a block
means is worked out once, and every connection that sends it holds the same objects: that saves reading it again on each
new connection, and with thousands of connections it saves going through memory that is no longer in any cache.
"""

from typing import Final

from devhost_server.failures import Fault
from devhost_server.messages.request_head import RequestFields, parse_request_block, parse_request_line
from devhost_server.messages.trust import Peer

ParsedLine = tuple[bytes, bytes, bool]
"""Method, target, and whether it is HTTP/1.0."""

# Entries of each kind besides one for each route, whose hosts make blocks differ; and the longest that are kept. That
# is a megabyte or two at most, whatever clients invent. Past the bound everything is forgotten, and the few that matter
# are learnt again. Longer blocks are a browser's, and those have cookies, or differ from page to page.
_REMEMBERED: Final = 512
_LINE_LENGTH: Final = 128
_BLOCK_LENGTH: Final = 512
# Blocks and lines with these are read anew on each connection: secrets are not kept longer than they are needed.
_SECRET_FIELDS: Final = (b"\r\ncookie", b"\r\nauthorization", b"\r\nproxy-authorization", b"\r\nx-api-key")


class HeadMemory:
    """Request lines by their bytes, field blocks by who sent them and their bytes."""

    def __init__(self) -> None:
        self.strict = False  # about paths; `clear` after a change
        self._most = _REMEMBERED
        self._lines: dict[bytes, tuple[bytes, ParsedLine]] = {}
        self._blocks: dict[tuple[Peer, bytes], tuple[bytes, RequestFields]] = {}

    def clear(self) -> None:
        """Forget everything: what is sound has changed, or the peers that it is about are forgotten."""
        self._lines.clear()
        self._blocks.clear()

    def make_room(self, routes: int) -> None:
        """Be ready for so many routes."""
        self._most = _REMEMBERED + routes

    def line(self, line: bytes) -> tuple[bytes, ParsedLine] | Fault:
        """Return a request line, as one object for all who sent it, and what it says; or why it is refused."""
        known = self._lines.get(line)
        if known is not None:
            return known
        parsed = parse_request_line(line, strict=self.strict)
        if isinstance(parsed, Fault):
            return parsed
        if len(line) <= _LINE_LENGTH and b"?" not in line:
            if len(self._lines) >= self._most:
                self._lines.clear()
            self._lines[line] = line, parsed
        return line, parsed

    def block(self, block: bytes, method: bytes, peer: Peer) -> tuple[bytes, RequestFields] | Fault:
        """Return a field block, as one object for all who sent it, and what it says; or why it is refused."""
        short = len(block) <= _BLOCK_LENGTH
        known = self._blocks.get((peer, block)) if short else None
        if known is not None:
            return known
        fields = parse_request_block(block, method, peer)
        if isinstance(fields, Fault):
            return fields
        # With an upgrade, what the block means depends on the method too.
        if short and fields.upgrade is None and not _has_secret(block):
            if len(self._blocks) >= self._most:
                self._blocks.clear()
            self._blocks[peer, block] = block, fields
        return block, fields


def _has_secret(block: bytes) -> bool:
    lower = block.lower()
    return any(name in lower for name in _SECRET_FIELDS)

"""What is kept of chunked request bodies until they can be sent with a length, and how much of it there may be.

Sans I/O. A target's connection is not taken meanwhile: a body that is still coming costs nothing but its bytes.
"""

from typing import Final

# What one worker keeps of all such bodies together. Most uploads are small: nginx keeps 16 KiB of each in memory. This
# is room for four of the largest that `buffer_body` allows.
TOTAL: Final = 256 * 1024 * 1024
# Smaller pieces are put together, once they are so many or as many bytes as that: an object of Python costs some 40
# bytes more than what is in it, and a client may send two bytes at a time.
_SMALL: Final = 16 * 1024
_MANY: Final = 512
_ENOUGH: Final = 64 * 1024


class BodyMemory:
    """How many bytes of bodies a worker keeps."""

    __slots__ = ("_most", "held")

    def __init__(self, most: int = TOTAL) -> None:
        self.held = 0
        self._most = most

    def __repr__(self) -> str:
        return f"<BodyMemory {self.held} of {self._most} bytes>"

    @property
    def full(self) -> bool:
        """Whether more is kept than may be."""
        return self.held > self._most


class BodyBuffer:
    """The account of one body.

    `most` is the length up to which it is kept; `length` is what the target is told, None where it gets chunks.
    """

    __slots__ = ("_held", "_memory", "_small", "_small_bytes", "length", "most")

    def __init__(self, most: int, memory: BodyMemory) -> None:
        self.most = most
        self.length: int | None = None
        self._memory = memory
        self._held = 0
        self._small = 0  # how many of the last pieces are
        self._small_bytes = 0

    def __repr__(self) -> str:
        return f"<BodyBuffer {self._held} bytes, {self.most} at most, length={self.length}>"

    def count(self, size: int) -> bool:
        """Count `size` bytes that are kept; return whether there is room for them among all the worker keeps."""
        self._held += size
        self._memory.held += size
        return not self._memory.full

    def tidy(self, body: list[bytes]) -> None:
        """Put the last pieces of a body together if they have become many and small; called after each piece."""
        size = len(body[-1])
        if size >= _SMALL:
            self._small = self._small_bytes = 0
            return
        self._small += 1
        self._small_bytes += size
        if self._small == _MANY or self._small_bytes >= _ENOUGH:
            body[-self._small :] = [b"".join(body[-self._small :])]
            self._small = self._small_bytes = 0

    def release(self) -> None:
        """Count it no longer."""
        self._memory.held -= self._held
        self._held = 0

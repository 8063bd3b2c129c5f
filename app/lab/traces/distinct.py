"""Counts distinct keys in bounded memory.

    keys = Distinct(); keys.add("home"); keys.count

Up to 2^19 keys are counted exactly (about 50 MB). For more, a sample by hash is kept, and halved whenever it is full:
the count is then an estimate, some 0.2 % off. That is adaptive sampling: Flajolet, "On adaptive sampling", Computing
43, 1990.
"""

from hashlib import blake2b

MOST = 2**19


class Distinct:
    """A counter of distinct keys, exact for up to `most` of them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._hashes: set[int] = set()
        self._mask = 0

    def add(self, key: str) -> None:
        """Counts `key` if it is new."""
        # Not Python's own hash: with it, an estimate would differ from run to run.
        hashed = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
        if hashed & self._mask == 0:
            self._hashes.add(hashed)
            while len(self._hashes) > self._most:
                self._mask = self._mask << 1 | 1
                self._hashes = {hashed for hashed in self._hashes if hashed & self._mask == 0}

    @property
    def exact(self) -> bool:
        """Whether `count` is exact."""
        return self._mask == 0

    @property
    def count(self) -> int:
        """The number of distinct keys that were added."""
        return len(self._hashes) * (self._mask + 1)

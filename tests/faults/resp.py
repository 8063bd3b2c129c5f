"""The protocol of Redis, as far as it defines where a message ends."""

from collections.abc import Iterator

AGGREGATES = {b"*": 1, b">": 1, b"~": 1, b"%": 2, b"|": 2}
"""The types that begin with a number of elements, including RESP3's, which redis-py speaks unless told otherwise."""
BULKS = (b"$", b"=", b"!")
"""The types that begin with a number of bytes."""


class Resp:
    """Splits a stream of bytes into messages, however it arrives, and leaves the bytes unchanged."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._read = 0
        self._missing = 1
        """How many elements are missing until the message is complete."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Returns the messages that are complete now."""
        buffer = self._buffer
        buffer += data
        began = 0
        while (line := buffer.find(b"\r\n", self._read)) >= 0:
            kind, after = bytes(buffer[self._read : self._read + 1]), line + 2
            more = 0
            if kind in BULKS:
                length = int(buffer[self._read + 1 : line])
                after += length + 2 if length >= 0 else 0
                if after > len(buffer):
                    break
            elif kind in AGGREGATES:
                more = AGGREGATES[kind] * max(int(buffer[self._read + 1 : line]), 0) + (kind == b"|")
            self._read = after
            self._missing += more - 1
            if self._missing == 0:
                yield bytes(buffer[began:after])
                began, self._missing = after, 1
        del buffer[:began]
        self._read -= began

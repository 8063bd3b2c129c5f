"""Limits how many parts a large JSON body may have, so that parsing and validating it does not block the event loop.

    4 MB of nothing but lists           take a second
    4 MB of numbers of 4,300 digits     take 150 ms: parsing a number takes time quadratic in its digits

10,000 views have 10,000 objects, 60,000 quotation marks and 20,000 commas, and those in the names of their pages.

What can go wrong: marks inside page names count, too, so a body whose names are full of them is refused.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

MARKS: Mapping[str, tuple[tuple[bytes, ...], int]] = {
    "lists and objects": ((b"[", b"{"), 32_768),
    "quotation marks": ((b'"',), 80_000),
    "commas": ((b",",), 262_144),
}
"""The bytes that are counted, and how many of them a body may have."""
RUN, MOST_RUNS = b"1" * 200, 1_000
"""A run of digits, and the number of runs that a body may have."""
ONES = bytes(ord("1") if chr(byte) in "0123456789" else 0 for byte in range(256))
"""A translation table that maps each digit to 1, and all else to 0."""


class Parts:
    """Counts the parts of one body as it arrives."""

    def __init__(self) -> None:
        self._marks = dict.fromkeys(MARKS, 0)
        self._runs = 0
        self._rest = b""
        """The trailing digits so far that are not a whole run."""

    def count(self, body: bytes) -> None:
        """Counts the parts of the next chunk. Raises HTTPException with status 413 when there are too many."""
        for what, (marks, most) in MARKS.items():
            self._marks[what] += sum(map(body.count, marks))
            if self._marks[what] > most:
                raise HTTPException(413, f"The body has more than {most:,} {what}.")
        ones = self._rest + body.translate(ONES)
        self._runs += ones.count(RUN)
        if self._runs > MOST_RUNS:
            raise HTTPException(413, f"The body has more than {MOST_RUNS:,} times {len(RUN)} digits in a row.")
        self._rest = b"1" * ((len(ones) - len(ones.rstrip(b"1"))) % len(RUN))

"""How many parts a large body of JSON may have, so that to parse and to validate it does not hold up everyone.

    4 MB of nothing but lists           take a second
    4 MB of numbers of 4,300 digits     take 150 ms: to read a number takes time by the square of its digits

10,000 views have 10,000 objects, 60,000 quotation marks and 20,000 commas, and what is in the names of their pages.

What can go wrong: parts are counted in names, too, so names that are full of them make a body that is refused.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

MARKS: Mapping[str, tuple[tuple[bytes, ...], int]] = {
    "lists and objects": ((b"[", b"{"), 32_768),
    "quotation marks": ((b'"',), 80_000),
    "commas": ((b",",), 262_144),
}
"""Which bytes a body may have how often."""
RUN, MOST_RUNS = b"1" * 200, 1_000
"""So many digits in a row are a run, and so many runs a body may have."""
ONES = bytes(ord("1") if chr(byte) in "0123456789" else 0 for byte in range(256))
"""Each digit as 1, and nothing else as 1."""


class Parts:
    """Those of one body, as it comes."""

    def __init__(self) -> None:
        self._marks = dict.fromkeys(MARKS, 0)
        self._runs = 0
        self._rest = b""
        """The digits at the end of what has come, as far as they are no whole run."""

    def count(self, body: bytes) -> None:
        """Counts what comes next. Raises HTTPException with status 413 when it is too much."""
        for what, (marks, most) in MARKS.items():
            self._marks[what] += sum(map(body.count, marks))
            if self._marks[what] > most:
                raise HTTPException(413, f"The body has more than {most:,} {what}.")
        ones = self._rest + body.translate(ONES)
        self._runs += ones.count(RUN)
        if self._runs > MOST_RUNS:
            raise HTTPException(413, f"The body has more than {MOST_RUNS:,} times {len(RUN)} digits in a row.")
        self._rest = b"1" * ((len(ones) - len(ones.rstrip(b"1"))) % len(RUN))

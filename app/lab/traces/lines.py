"""The lines of a text file, plain or gzipped, or of standard input.

    with open_lines(Path("access.log.gz")) as lines:
        for line in lines: ...              # they end with \\n, whether the file has \\n, \\r\\n, \\r or all of them

Each line is bounded, so that a file without any line ends does not fill the memory. Bytes that are not UTF-8 stay
readable, as \\xff; a byte order mark is dropped. What is not text at all is refused.
"""

import gzip
import io
import os
import select
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from app.lab.traces.trace_error import TraceError

STANDARD_INPUT = Path("-")
LONGEST = 65_536
"""Characters of a line. Web servers refuse requests much shorter than this."""
MOST_EMPTY = 100_000
"""The most empty lines in a row. With more of them, the file may have no end."""
GZIP = b"\x1f\x8b"
"""The first bytes of every gzip file (RFC 1952, section 2.3.1)."""
SAMPLE = 8_192
"""The bytes from which text is told from binary data."""
LOOK = 200
"""In milliseconds: how long a read waits for a byte before it checks for a signal."""


class Lines:
    """An iterator over the lines; `number` is that of the last line it returned, from 1."""

    def __init__(self, text: io.TextIOWrapper, counted: "_Counted", total: int | None) -> None:
        self._text, self._counted = text, counted
        self.total = total
        self.number = self._empty = 0

    @property
    def done(self) -> int:
        """The bytes read so far, of `total`; both as stored. The total is None when it is unknown."""
        return self._counted.count

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(LONGEST + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TraceError(f"The gzip file is broken after line {self.number:,}: {error}.") from None
        if not line:
            raise StopIteration
        self.number += 1
        self._empty = self._empty + 1 if line == "\n" else 0
        if self._empty > MOST_EMPTY:
            raise TraceError(f"{MOST_EMPTY:,} lines up to line {self.number - 1:,} are empty: this is no trace.")
        if len(line) > LONGEST and not line.endswith("\n"):
            raise TraceError(f"Line {self.number:,} is longer than {LONGEST:,} characters.")
        if "\0" in line:
            raise TraceError(f"Line {self.number:,} has a zero byte: this is binary, and not a trace.")
        return line


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Holds open the lines of the file at `path`, or of standard input for `-`.

    Raises TraceError when the file cannot be read, is empty, or is not text.
    """
    with ExitStack() as stack:
        if path == STANDARD_INPUT and sys.stdin is None:  # Python's sign that it was closed.
            raise TraceError("Standard input is closed: there is no trace in it.")
        try:
            stored = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            counted = _Counted(stored)
            start = counted.start(len(GZIP))
        except OSError as error:
            raise TraceError(f"{path} cannot be read: {error.strerror}.") from None
        plain: io.RawIOBase = counted
        if start == GZIP:
            # It is a raw stream in all but its declared type.
            plain = cast(io.RawIOBase, gzip.GzipFile(fileobj=io.BufferedReader(counted)))
        content = io.BufferedReader(plain)
        try:
            _refuse_binary(content.peek(SAMPLE)[:SAMPLE])
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TraceError(f"The gzip file is broken: {error}.") from None
        text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="backslashreplace", newline=None)
        yield Lines(text, counted, _size(stored))


def _refuse_binary(sample: bytes) -> None:
    if not sample:
        raise TraceError("The trace is empty.")
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TraceError("The trace is UTF-16: save it as UTF-8.")
    letters = sample.decode(errors="replace").removeprefix("\ufeff")
    strange = sum(letter == "\ufffd" or not (letter.isprintable() or letter.isspace()) for letter in letters)
    # A log may have some bytes of another encoding. Compressed data and images have little else.
    if "\0" in letters or strange > len(letters) // 10:
        raise TraceError("This is binary, and not a trace.")


def _size(stored: BinaryIO) -> int | None:
    try:
        status = os.fstat(stored.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Counted(io.RawIOBase):
    """A stored file or a pipe. Counts the bytes."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored, self._start = stored, b""
        self._poll = select.poll()
        self._number: int | None = None
        with suppress(OSError):  # What is in memory has no number.
            self._number = stored.fileno()
            self._poll.register(self._number, select.POLLIN)
        self.count = 0

    def start(self, length: int) -> bytes:
        """Returns the first `length` bytes, or all there are. They are read again later."""
        while len(self._start) < length and (some := self._some(length - len(self._start))):
            self._start += some
        return self._start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # A buffer is longer than these few bytes.
        found = self._start + self._some(len(buffer) - len(self._start))
        self._start = b""
        buffer[: len(found)] = found
        self.count += len(found)
        return len(found)

    def _some(self, most: int) -> bytes:
        # A pipe may be silent for hours, and a signal be missed meanwhile:
        #
        #     Python checks for signals, and finds none
        #                                                 Ctrl-C
        #     it reads, and waits: the signal that would have ended the wait came before
        #
        # So it waits only for a moment, and checks again.
        if self._number is None:
            return self._stored.read(most)
        while not self._poll.poll(LOOK):
            continue
        return os.read(self._number, most)

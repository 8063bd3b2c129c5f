"""A trace: what was read and written, in order.

    trace = read_trace(Path("access.log.gz"), most=4_000)

A file is read in one pass, and may be larger than memory: its first operations are kept, and the rest is only counted.
Its format is recognised by its first lines, never by its name: a web server's log (`access_log.py`), else CSV
(`csv_rows.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from app.lab.traces.access_log import is_log, read_log
from app.lab.traces.csv_rows import read_csv
from app.lab.traces.distinct import Distinct
from app.lab.traces.lines import STANDARD_INPUT, Lines, open_lines
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.row import Row
from app.lab.traces.trace_error import TraceError

MOST_LINES = 10_000_000
"""Where the pass over a file ends: half a minute."""
HEAD = 10
"""The number of lines by which a log is recognised. The very first line may be truncated."""
STEP = 10_000
"""The number of lines between two progress reports."""

Progress = Callable[[int, int | None], object]
"""Called with the number of bytes read, and the size of the file: None when it is unknown."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The first operations of a trace, and the totals of all of it."""

    name: str
    operations: Sequence[Operation]
    reads: int
    """The reads of the whole trace, kept or not. The totals below count all of it, too."""
    writes: int
    keys: int
    """The number of distinct keys."""
    exact: bool = True
    """Whether `keys` was counted exactly. Above half a million it is an estimate, some 0.2 % off."""
    whole: bool = True
    """Whether the file was read to its end: not if it has more lines than `read_trace` reads."""
    skipped: int = 0
    """Lines of a log without a request that reads or writes."""

    @property
    def length(self) -> int:
        """The number of operations of the whole trace."""
        return self.reads + self.writes


def read_trace(
    path: Path,
    most: int | None,
    *,
    views: bool = False,
    progress: Progress = lambda done, total: None,
    most_lines: int = MOST_LINES,
) -> Trace:
    """Reads the trace at `path`; `-` is standard input. Either may be gzipped.

    most: how many operations are kept; None for all of the lines that are read.
    views: each read counts as what it means to a counter of views: a write.
    most_lines: after how many lines the pass ends, even before the end of the file.

    The times of the operations begin at 0 and never go back: the order of the rows is the order of the trace. Raises
    TraceError, which names the line, when the file is empty, binary, broken, or has unknown columns.
    """
    operations: list[Operation] = []
    keys = Distinct()
    counts = {Kind.READ: 0, Kind.WRITE: 0}
    skipped = 0
    began = latest = None
    whole = True
    with open_lines(path) as lines:
        for number, row in enumerate(_rows(lines), 1):
            if number > most_lines:
                whole = False
                break
            if number % STEP == 0:
                progress(lines.done, lines.total)
            if row is None:
                skipped += 1
                continue
            kind, key, time = row
            if views:
                kind = Kind.WRITE
            counts[kind] += 1
            keys.add(key)
            if most is None or len(operations) < most:
                if time is not None:
                    began = time if began is None else began
                    latest = time if latest is None else max(latest, time)
                at = None if time is None or latest is None or began is None else round(latest - began, 6)
                operations.append(Operation(kind, key, at))
        progress(lines.done, lines.total)
    if not any(counts.values()):
        raise TraceError("The trace has no operations.")
    name = "standard input" if path == STANDARD_INPUT else path.name
    return Trace(name, operations, counts[Kind.READ], counts[Kind.WRITE], keys.count, keys.exact, whole, skipped)


def _rows(lines: Lines) -> Iterator[Row | None]:
    head = list(islice(lines, HEAD))
    both = chain(head, lines)
    return read_log(both) if any(is_log(line) for line in head) else read_csv(both)

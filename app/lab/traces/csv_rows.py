"""A trace as CSV: a header that names known columns, and a row for each operation.

    op,key,t
    get,user:17,0.25
    set,user:17,0.31

Here t (in seconds) is optional, and so is the header. The columns of published traces are known, too: LAYOUTS. A row
that cannot be understood ends the reading with a TraceError: a file that a program wrote has no errors to skip.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.lab.traces.operation import Kind
from app.lab.traces.row import LONGEST_KEY, Row
from app.lab.traces.trace_error import TraceError

READS = "get gets get_lease mget read r head hit scan clicks"
WRITES = (
    "set set_lease add replace cas append prepend incr decr incrby delete del touch "
    "write w put post patch update insert carts orders"
)
KINDS = dict.fromkeys(READS.split(), Kind.READ) | dict.fromkeys(WRITES.split(), Kind.WRITE)
"""The names of operations in lower case: those of memcached, Redis, YCSB, HTTP, and of a shop's events."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one kind of file. It is recognised by the columns of `key`, `op` and `also` together."""

    name: str
    key: tuple[str, ...]
    op: str | None = None
    """The column that names the operation. Without one, each row is of `kind`."""
    kind: Kind = Kind.READ
    also: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    """The columns that may have the time. The first one present is used."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the header must have."""
        return (*self.key, *([self.op] if self.op else []), *self.also)


LAYOUTS = (
    Layout("operations", key=("key",), op="op", times=("t", "t_us", "op_time")),
    Layout("requests of a web server", key=("path",), op="method", times=("epoch_s",)),
    Layout("events of a shop", key=("article_id",), op="type", times=("ts_ms",)),
    Layout("order lines", key=("stock_code",), also=("invoice_no",), kind=Kind.WRITE, times=("invoice_date",)),
    Layout("order lines", key=("product_id",), also=("order_id",), kind=Kind.WRITE, times=("order_date",)),
    Layout("edits of pages", key=("project", "page"), also=("delta_bytes",), kind=Kind.WRITE, times=("ts",)),
    Layout("views of pages", key=("page_id",), times=("t",)),
    Layout("look-ups", key=("key",), times=("t",)),
)
"""The first layout that fits is used."""


def read_csv(lines: Iterable[str]) -> Iterator[Row]:
    """Reads the rows of a CSV file.

    Raises TraceError with the line number: for unknown columns, an unknown operation, too few or too many columns, a
    key that is empty or longer than 1,024 bytes, an invalid time, or quotes that do not end.
    """
    rows = csv.reader(lines, strict=True)
    try:
        header = next((row for row in rows if row), None)
        if header is None:
            return
        columns = [name.strip().lower() for name in header]
        if columns[0] in KINDS and 2 <= len(columns) <= 3:
            columns = ["op", "key", "t"][: len(columns)]
            yield _Reader(columns, _layout(columns)).read(header)
        reader = _Reader(columns, _layout(columns))
        for row in rows:
            if row:
                yield reader.read(row)
    except csv.Error as error:
        raise TraceError(f"Line {rows.line_num:,} is no CSV: {error}.") from None
    except ValueError as error:
        raise TraceError(f"Line {rows.line_num:,}: {error}") from None


def _layout(columns: Sequence[str]) -> Layout:
    for layout in LAYOUTS:
        if set(layout.columns) <= set(columns):
            return layout
    known = "; ".join(dict.fromkeys(",".join(layout.columns) for layout in LAYOUTS))
    raise ValueError(
        f"{_short(','.join(columns))} has no columns that are known. Known are a header with {known}; "
        "and the lines of a web server's log."
    )


class _Reader:
    """Reads the rows below one header. Errors are ValueErrors: the caller knows the line."""

    def __init__(self, columns: Sequence[str], layout: Layout) -> None:
        self._width = len(columns)
        self._keys = [columns.index(name) for name in layout.key]
        self._op = None if layout.op is None else columns.index(layout.op)
        self._kind = layout.kind
        timed = [name for name in layout.times if name in columns]
        self._time = columns.index(timed[0]) if timed else None
        self._seconds = SECONDS[timed[0]] if timed else float

    def read(self, row: list[str]) -> Row:
        if len(row) != self._width:
            hint = "" if len(row) < self._width else " A comma in a key needs quotes around the key."
            raise ValueError(f"there are {len(row)} columns, and {self._width} in the header.{hint}")
        key = row[self._keys[0]] if len(self._keys) == 1 else ":".join(row[column] for column in self._keys)
        # No character takes more than four bytes.
        if not key or (len(key) > LONGEST_KEY // 4 and len(key.encode()) > LONGEST_KEY):
            raise ValueError(
                f"the key {_short(key)} has {len(key.encode()):,} bytes, and 1 to {LONGEST_KEY:,} are allowed."
            )
        kind = self._kind if self._op is None else KINDS.get(row[self._op].strip().lower())
        if kind is None:
            raise ValueError(f"{_short(row[self._op or 0])} is no operation that is known, such as get or set.")
        return kind, key, None if self._time is None else self._at(row[self._time])

    def _at(self, text: str) -> float:
        try:
            seconds = self._seconds(text)
        except (ValueError, OverflowError):
            seconds = math.nan
        if not math.isfinite(seconds):
            raise ValueError(f"{_short(text)} is no time.")
        return seconds


def _calendar(text: str) -> float:
    """Returns the seconds since the epoch of an ISO 8601 date; UTC unless it says otherwise."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


SECONDS: dict[str, Callable[[str], float]] = {
    "t": float,
    "t_us": lambda text: float(text) / 1_000_000,
    "op_time": float,
    "epoch_s": float,
    "ts_ms": lambda text: float(text) / 1_000,
    "ts": _calendar,
    "invoice_date": _calendar,
    "order_date": _calendar,
}
"""Converts a column of this name to seconds."""


def _short(text: str) -> str:
    """Returns foreign text, made harmless and put on one line."""
    return repr(text) if len(text) <= 60 else repr(text[:60]) + "…"

"""A web server's log, common or combined, as Apache and nginx write it.

    203.0.113.9 - ada [01/Jul/1995:00:00:01 -0400] "GET /history/apollo/ HTTP/1.0" 200 6245

GET and HEAD read; POST, PUT, PATCH and DELETE write; the key is the path with its query, without a fragment. Clients
send anything: a line without such a request is skipped, and the caller counts it.

The format: https://httpd.apache.org/docs/2.4/logs.html#accesslog.
"""

import re
from collections.abc import Iterable, Iterator
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache

from app.lab.traces.operation import Kind
from app.lab.traces.row import LONGEST_KEY, Row

METHODS = {
    "GET": Kind.READ,
    "HEAD": Kind.READ,
    "POST": Kind.WRITE,
    "PUT": Kind.WRITE,
    "PATCH": Kind.WRITE,
    "DELETE": Kind.WRITE,
}
LINE = re.compile(r'\S+ [^\["]*\[([^\]]{20,40})\] "((?:[^"\\]|\\.)*)" \d{3} (?:\d+|-)(?: |$)')


def is_log(line: str) -> bool:
    """Returns whether this is a line of a log."""
    return LINE.match(line) is not None


def read_log(lines: Iterable[str]) -> Iterator[Row | None]:
    """Returns the requests of a log; None for a line without one that reads or writes."""
    return map(_read, lines)


def _read(line: str) -> Row | None:
    found = LINE.match(line)
    if found is None:
        return None
    time, request = _seconds(found[1]), found[2]
    method, _, target = request.partition(" ")
    kind = METHODS.get(method)
    # Without a version it is HTTP/0.9. A path may contain unquoted blanks.
    path, _, version = target.rpartition(" ")
    key = (path if version.startswith("HTTP/") else target).partition("#")[0]
    if time is None or kind is None or not key or len(key.encode()) > LONGEST_KEY:
        return None
    return kind, key, time


@lru_cache(maxsize=16)  # Neighbouring lines have the same second.
def _seconds(time: str) -> float | None:
    """Returns the seconds since the epoch of `01/Jul/1995:00:00:01 -0400`; None for what is not a time."""
    try:
        parsed = parsedate_tz(time.replace("/", " ").replace(":", " ", 1))
        return None if parsed is None else float(mktime_tz(parsed))
    except (ValueError, OverflowError):
        return None

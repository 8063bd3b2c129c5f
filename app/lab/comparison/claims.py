"""The meaning of the comparison's columns, the published claim that each tests, and the published table of four.

The claims are those of "Redis Caching Strategies: Cache-Aside, Read-Through, Write-Behind, and When Each One Actually
Makes Sense", and of "Write-Behind (Write-Back) Caching Pattern". Text in quotation marks is quoted from them.
"""

from dataclasses import dataclass

from app.caching import CacheAside, ReadThrough, WriteBehind, WriteThrough


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its `title`, its meaning, and the `claim` that it tests."""

    title: str
    meaning: str
    claim: str


COLUMNS = (
    Column(
        "hits",
        "The share of reads for which the database was not asked.",
        "“the first request 200 ms; on the second, with a warm cache, 12 ms”",
    ),
    Column(
        "read ms",
        "What half of the reads took at most, 99 of 100, and 999 of 1,000.",
        "“The strategy that made the read path fast made the write path slow.”",
    ),
    Column(
        "write ms",
        "The same of writes, until they were acknowledged.",
        "write latency “None added”, and for write-through “Added … by a factor of 2-3x”",
    ),
    Column(
        "DB reads",
        "Statements that read, by readers and by what works behind them.",
        "“500 requests all miss the cache at once, they all hit the database”",
    ),
    Column(
        "DB writes",
        "Statements that write; write-through's take the row's lock first.",
        "“The database is protected from write storms.”",
    ),
    Column(
        "per row",
        "Acknowledged writes for each row that was written.",
        "“incremented 1000 times per second, only the final value needs to be written”",
    ),
    Column(
        "Redis trips",
        "Round trips to Redis; a script or a pipeline is one.",
        "“every inventory decrement now waits for two round trips to Redis”",
    ),
    Column("Redis KiB", "What these transferred, both ways.", "“fast” is not free: the cache has a network, too"),
    Column(
        "stale",
        "Reads that began after a newer value had been acknowledged; and how old the oldest was.",
        "stale data risk “Low”, “None”, “High”",
    ),
    Column(
        "uncommitted",
        "Reads of a value that the database did not have (write-behind: that it never got).",
        "write-through: “waits for both to succeed”",
    ),
    Column(
        "lost",
        "Acknowledged writes that the database never got.",
        "“If Redis or the API crashes before the flush, those updates are lost.”",
    ),
    Column(
        "doubled",
        "Counts that the database added more than once; values that it set again over a newer one.",
        "“unacknowledged messages are redelivered to another consumer”",
    ),
    Column("errors", "Operations that failed.", "“serving a stale value is worse than serving nothing”"),
)


@dataclass(frozen=True, slots=True)
class Words:
    """A row of the published table of four."""

    strategy: str
    reads_from: str
    writes_to: str
    stale_risk: str
    write_latency: str
    complexity: str


TABLE_OF_FOUR = (
    Words(CacheAside.NAME, "Cache, then DB", "DB only (cache invalidated)", "Low", "None added", "Low"),
    Words(ReadThrough.NAME, "Cache (cache loads from DB)", "DB only", "Low", "None added", "Medium"),
    Words(WriteThrough.NAME, "Cache, then DB", "Cache + DB (synchronous)", "None", "Added", "Medium"),
    Words(WriteBehind.NAME, "Cache, then DB", "Cache only (async DB flush)", "High", "None added", "High"),
)

PUBLISHED_AS = {
    CacheAside.NAME: "cache-aside, as published",
    ReadThrough.NAME: "cache-aside, as published",
    WriteThrough.NAME: "write-through, concurrent",
    WriteBehind.NAME: "write-behind, list",
}
"""The contestant whose measured values appear beside the words. The published read-through queries and fills as the
published cache-aside does."""

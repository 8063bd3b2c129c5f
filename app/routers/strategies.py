"""The strategies as data: what each one is, when to use it and when not, and what the traffic suggests.

What can go wrong: little traffic makes a poor suggestion, so each says how sure it is. It never switches anything.
"""

from collections.abc import Mapping
from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field

from app.advice import Choice, Loss, Needs, Sure, Traffic, advise
from app.caching import CacheAside, ReadThrough, WriteBehind, WriteThrough


class Reads(BaseModel):
    """Reads since the service started, over all workers."""

    hits: int
    misses: int = Field(description="Reads whose own load asked the database.")
    collapsed: int = Field(description="Reads that shared the load of another.")
    stale: int = Field(description="Reads that got an old value because the load failed.")
    locked: int = Field(description="Reads that asked the database because a writer was at work on the row.")
    bypassed: int = Field(description="Reads that asked the database because Redis did not answer.")
    refused_fills: int = Field(description="Loads that were not kept, because a write came between.")
    database_queries: int
    hit_ratio: float | None = Field(description="Hits among all reads; null before the first read.")


class Writes(BaseModel):
    """Writes that reach the database later, since the service started, over all workers."""

    accepted: int | None = Field(description="Views accepted: flushed or pending. Null where `backlog` is.")
    backlog: int | None = Field(description="Views that wait for the database; null while Redis does not answer.")
    flushed: int = Field(description="Views flushed to the database.")
    rows_written: int = Field(description="Rows that those took.")
    views_per_row: float | None = Field(description="What merging them has saved; null before the first flush.")
    failed_flushes: int
    database_queries: int


class Strategy(BaseModel):
    """One way to put a cache in front of a database."""

    model_config = ConfigDict(frozen=True)

    name: str
    resource: str
    reads_from: str
    writes_to: str
    staleness: str
    write_latency: str
    use_when: list[str]
    avoid_when: list[str]
    never_for: list[str]


class Advised(BaseModel):
    """What the traffic of a resource suggests, by the article's decision tree. Nothing is ever switched by it."""

    configured: Choice
    suggested: Choice
    verdict: str = Field(description="What to make of it, where the two differ, and where they do not.")
    sure: Sure
    why: str = Field(description="Why it is so sure.")
    reasons: list[str] = Field(description="Each question of the tree, its answer, and what the article makes of it.")
    reads: int = Field(description="Since the service started, all workers together.")
    writes: int = Field(
        description="The same: changes over HTTP that were committed, and of page views each that was taken on. What "
        "others write in SQL is not counted."
    )
    stale_seconds: float | None = Field(description="How old an answer may be; 0: never, null: any age.")
    loss: Loss = Field(description="What it means to lose what is in the cache.")
    counts: bool = Field(description="Whether writes add to a number.")


class LiveStrategy(Strategy):
    """One strategy, its live figures, and what its traffic suggests."""

    live: Reads | Writes
    advice: Advised


STRATEGIES = (
    Strategy(
        name=CacheAside.NAME,
        resource="/users",
        reads_from="the cache; on a miss the application asks the database",
        writes_to="the database, then invalidates the cache",
        staleness="none for reads that start after a write was answered; a write in SQL shows within a second",
        write_latency="one Redis round trip more than without a cache",
        use_when=[
            "reads outnumber writes, and a value is read again before it changes",
            "how a value is read differs from case to case",
            "you do not know yet: it is the default",
        ],
        avoid_when=[
            "values are written about as often as they are read: every write throws an entry away",
            "the code that reads is spread over many places: one of them will forget the cache",
        ],
        never_for=["data that exists only in the cache", "a value that must be read and changed in one step"],
    ),
    Strategy(
        name=ReadThrough.NAME,
        resource="/products",
        reads_from="the cache, which loads itself from the database on a miss",
        writes_to="the database, then invalidates the cache",
        staleness="none for reads that start after a write was answered; a write in SQL shows within a second",
        write_latency="one Redis round trip more than without a cache",
        use_when=[
            "many places read the same thing: how it is loaded stands in one place",
            "readers want many keys at once: all misses are one query",
        ],
        avoid_when=[
            "a value is put together from several sources",
            "a load has side effects: it may run without a reader, or once more than you think",
        ],
        never_for=["data that exists only in the cache", "a value that must be read and changed in one step"],
    ),
    Strategy(
        name=WriteThrough.NAME,
        resource="/inventory",
        reads_from="the cache, which loads itself from the database on a miss, and asks past itself under a writer",
        writes_to="the database and the cache, both or neither",
        staleness="none, and nothing that is not committed; a write in SQL shows within a second",
        write_latency="a lock in the database, and two Redis round trips, more than without a cache",
        use_when=[
            "someone acts on the value: stock, seats, quotas",
            "what was written is read at once, and must be right",
        ],
        avoid_when=[
            "writes come in bulk, or as often as reads: each waits for both stores",
            "what is written is seldom read: the cache fills with values that nobody reads",
            "writes must go on while Redis is away: here they are refused",
        ],
        never_for=[
            "counters that every visitor raises: the writers of one key stand in line",
            "rows that other programs write in SQL, if not even a second may pass until it shows",
        ],
    ),
    Strategy(
        name=WriteBehind.NAME,
        resource="/page-views",
        reads_from="the cache; a cold total is what the database has, and what waits for it",
        writes_to="the cache at once, and the database soon",
        staleness="none through this API; the database itself is behind by the backlog",
        write_latency="one Redis round trip, and none to the database",
        use_when=[
            "small additions to few rows come in great numbers: views, likes, plays, impressions",
            "many of them can become one write: metrics, usage, activity, sensor readings",
            "writes must be accepted while the database is slow or down",
        ],
        avoid_when=[
            "a write must be in the database at once, for reports, joins, other services",
            "the database may refuse a write (unique, foreign key, not enough left): the client has its answer already",
            "there are few writes to each row: nothing merges, and the stream is only one more thing to run",
        ],
        never_for=[
            "what must survive the loss of Redis: orders, payments, registrations, invoices",
            "what a decision hangs on: stock, balances, permissions",
            "records that have to be complete one by one: audits, ledgers, consent",
        ],
    ),
)

CACHED = ("users", "products", "inventory")
"""The resources whose cache reports how each read went."""

NEEDS: Mapping[str, Needs] = {
    "/users": Needs(timedelta(0), Loss.NOTHING),
    "/products": Needs(timedelta(0), Loss.NOTHING),
    # Clients act on it, and a piece sold twice costs money.
    "/inventory": Needs(timedelta(0), Loss.REVENUE, counts=True),
    "/page-views": Needs(timedelta(0), Loss.DASHBOARD, counts=True),
}
"""What the data of each resource needs, by the promises of the service."""


def advised(strategy: Strategy, traffic: Traffic) -> Advised:
    """Returns what `traffic` suggests for the resource of `strategy`, compared with what is configured."""
    needs, configured = NEEDS[strategy.resource], Choice(strategy.name)
    advice = advise(needs, traffic)
    return Advised(
        configured=configured,
        suggested=advice.strategy,
        verdict=_verdict(configured, advice.strategy),
        sure=advice.sure,
        why=advice.why,
        reasons=list(advice.reasons),
        reads=traffic.reads,
        writes=traffic.writes,
        stale_seconds=None if needs.stale is None else needs.stale.total_seconds(),
        loss=needs.loss,
        counts=needs.counts,
    )


def _verdict(configured: Choice, suggested: Choice) -> str:
    if configured is suggested:
        return "What is configured is what is suggested."
    if {configured, suggested} == {Choice.CACHE_ASIDE, Choice.READ_THROUGH}:
        return (
            "The two cost the same: read-through is for what many places read, or many keys at once, and cache-aside "
            "is the simpler one otherwise. There is no reason to change."
        )
    return (
        f"With such traffic {suggested} would cost less than {configured}; `fourways lab advise` measures how much, "
        "on a trace of yours."
    )

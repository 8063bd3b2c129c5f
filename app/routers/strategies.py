"""The strategies as data: what each one is, when to use it, and when not."""

from pydantic import BaseModel, ConfigDict, Field


class Live(BaseModel):
    """What this service has counted since it started, all workers together."""

    hits: int
    misses: int = Field(description="Reads whose own load asked the database.")
    collapsed: int = Field(description="Reads that shared the load of another.")
    stale: int = Field(description="Reads that got an old value because the load failed.")
    bypassed: int = Field(description="Reads that asked the database because Redis did not answer.")
    refused_fills: int = Field(description="Loads that were not kept, because a write came between.")
    database_queries: int
    hit_ratio: float | None = Field(description="Hits among all reads; null before the first read.")


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


class LiveStrategy(Strategy):
    """One strategy, and how it does."""

    live: Live


STRATEGIES = (
    Strategy(
        name="cache-aside",
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
        name="read-through",
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
            "a load has side effects: it may run for nobody, or once more than you think",
        ],
        never_for=["data that exists only in the cache", "a value that must be read and changed in one step"],
    ),
)

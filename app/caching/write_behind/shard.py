"""How write-behind names what it keeps in Redis, and how it spreads keys over four streams.

likes:{2}                a stream: {batch: <ULID>, deltas: {"post-7": 3, …}, …: 4}, the only record of what is pending
likes:{2}:backlog        how much is pending in it
likes:{2}:bytes          how many bytes its deltas have
likes:{2}:epoch          a random word, another one after each flush
likes:{2}:total:…:post-7 the total of a key, with what is pending: a cache, which may vanish at any time
likes:{2}:guard:<id>     this batch was accepted: its entry, and its amount
likes:{2}:key:<idempotency key> post-7  the batch that has what was added to this key under this idempotency key
likes:{2}:call:<idempotency key>        the same of a call with many keys: for each batch, eight bytes for each key
likes:{2}:keyed          how many bytes such records take, by the hour in which they came
"""

import zlib
from dataclasses import dataclass

GROUP = "flushers"
"""The consumer group that reads the streams."""
COUNT = 4
"""A constant: an entry of a shard must find its keys there, also after an upgrade."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The names of one shard. Its hash tag keeps them in one slot, and so in reach of one script."""

    name: str
    number: int

    @property
    def stream(self) -> str:
        """What is pending."""
        return f"{self.name}:{{{self.number}}}"

    @property
    def backlog(self) -> str:
        """How much is pending."""
        return self.stream + ":backlog"

    @property
    def bytes(self) -> str:
        """How many bytes are pending."""
        return self.stream + ":bytes"

    @property
    def epoch(self) -> str:
        """Changes with each flush."""
        return self.stream + ":epoch"

    def total(self, key: str, life: str | None) -> str:
        """The total of a key, as counted in this `life` of Redis. A Redis that restarted may have lost the last
        additions: its totals are of the past, nobody asks for them any more, and they are built anew."""
        return f"{self.stream}:total:{life}:{key}"

    def guard(self, batch: str) -> str:
        """Whether a batch was accepted."""
        return f"{self.stream}:guard:{batch}"

    @property
    def keyed(self) -> str:
        """How many bytes it takes to know idempotency keys again."""
        return self.stream + ":keyed"

    def record(self, key: str, idempotency_key: str) -> str:
        """Whether an addition was accepted. An idempotency key has no blank, so the two cannot run into each other."""
        return f"{self.stream}:key:{idempotency_key} {key}"

    def call(self, idempotency_key: str) -> str:
        """Which additions of one call with many keys were accepted."""
        return f"{self.stream}:call:{idempotency_key}"


def shards(name: str) -> list[Shard]:
    """All shards."""
    return [Shard(name, number) for number in range(COUNT)]


def number(key: str) -> int:
    """The shard of a key."""
    return zlib.crc32(key.encode()) % COUNT

"""How write-behind's keys are named, and spread.

views:{2}                a stream: {batch: <ULID>, deltas: {"page": 3, …}, views: 4}, the only record of what is pending
views:{2}:backlog        how many views wait in it
views:{2}:bytes          how many bytes their deltas take
views:{2}:epoch          a random word, another one after each acknowledgement
views:{2}:total:…:/home  the views of a page, with those that wait: a cache, which may vanish at any time
views:{2}:guard:<id>     this batch was accepted: its entry, and its views
views:{2}:key:<key> /home   the batch that has the view of this page with this idempotency key
views:{2}:call:<key>     the same of a call with many pages: for each batch, eight bytes of the hash of each page
views:{2}:keyed          how many bytes such records take, by the hour in which they came
"""

import secrets
import zlib
from dataclasses import dataclass

GROUP = "flushers"
"""The consumer group that carries the streams to the database."""
COUNT = 4
"""A constant: entries that wait in a shard must find their pages there."""

YEAR_9999 = 253_402_300_799_999
"""Its last millisecond since the epoch."""
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


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
        """How many views are pending."""
        return self.stream + ":backlog"

    @property
    def bytes(self) -> str:
        """How many bytes are pending."""
        return self.stream + ":bytes"

    @property
    def epoch(self) -> str:
        """Changes with each acknowledgement."""
        return self.stream + ":epoch"

    def total(self, page: str, life: str | None) -> str:
        """The views of a page, as counted in this `life` of Redis. One that restarted may have forgotten the last ones:
        its totals are of the past, nobody asks for them any more, and they are built anew."""
        return f"{self.stream}:total:{life}:{page}"

    def guard(self, batch: str) -> str:
        """Whether a batch was accepted."""
        return f"{self.stream}:guard:{batch}"

    @property
    def keyed(self) -> str:
        """How much is kept to know idempotency keys again."""
        return self.stream + ":keyed"

    def key(self, page: str, key: str) -> str:
        """Whether a view was accepted. An idempotency key has no blank, so the two cannot run into each other."""
        return f"{self.stream}:key:{key} {page}"

    def call(self, key: str) -> str:
        """Which views of many pages were accepted in one call."""
        return f"{self.stream}:call:{key}"


def shards(name: str) -> list[Shard]:
    """All shards."""
    return [Shard(name, number) for number in range(COUNT)]


def number(page: str) -> int:
    """The shard of a page."""
    return zlib.crc32(page.encode()) % COUNT


def ulid(now: float) -> str:
    """A new batch id: sorted by its time (`now`, in milliseconds since the epoch), and random in the rest.

    From https://github.com/ulid/spec.
    """
    value = int(now) << 80 | secrets.randbits(80)
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def ulid_time(batch: str) -> int:
    """When a batch id was made, in milliseconds since the epoch. Raises ValueError when it is none."""
    if len(batch) != 26 or any(letter not in ALPHABET for letter in batch):
        raise ValueError(f"{batch!r} is no ULID.")
    time = 0
    for letter in batch[:10]:
        time = time << 5 | ALPHABET.index(letter)
    if time > YEAR_9999:
        raise ValueError(f"{batch!r} is of no time that can be.")
    return time

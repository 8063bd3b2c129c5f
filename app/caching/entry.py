"""An entry of write-behind's stream: a batch of views on its way to the database, and what may become of it there.

What can go wrong: the bytes are no batch. Then the entry has none, and becomes a dead letter as it is.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from app.caching.shards import Shard, ulid_time


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call has accepted: how many views of which pages."""

    id: str
    deltas: Mapping[str, int]

    @property
    def views(self) -> int:
        """How many views it holds."""
        return sum(self.deltas.values())


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch as it stands in the stream; `batch` is None where the bytes are none."""

    shard: Shard
    id: str
    batch: Batch | None
    raw: bytes

    @property
    def views(self) -> int:
        """How many views it holds."""
        return 0 if self.batch is None else self.batch.views

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.shard.stream} {self.id}"


@dataclass(frozen=True, slots=True)
class Salvage:
    """An entry that the database has refused, alone, or that is no batch; `place` is where it stood."""

    place: str
    batch: Batch | None
    raw: bytes
    reason: str
    deliveries: int


Flush = Callable[[Sequence[Batch]], Awaitable[int]]
"""Counts batches in the database, each at most once. Answers how many rows it wrote. Raises TargetUnavailable when the
database is away, and Refused when it refuses something of them; then nothing was counted. Raises NotDone when it is
there, and has not done it; where that is not known, the ledger will tell."""

FlushSalvage = Callable[[Salvage], Awaitable[tuple[int, int]]]
"""Counts what can be counted of one batch, and keeps the rest as dead letters, in one transaction, once. Answers how
many rows it wrote, and how many views became dead letters. Raises TargetUnavailable and NotDone."""


def entry(shard: Shard, id_: str, fields: Mapping[bytes, bytes]) -> Entry:
    """An entry as Redis tells it."""
    return Entry(shard, id_, _decoded(fields), fields.get(b"deltas", b""))


def _decoded(fields: Mapping[bytes, bytes]) -> Batch | None:
    try:
        deltas = json.loads(fields[b"deltas"])
        batch = fields[b"batch"].decode()
        ulid_time(batch)
        return Batch(batch, deltas) if all(type(delta) is int and delta > 0 for delta in deltas.values()) else None
    except (KeyError, ValueError, AttributeError, RecursionError):
        return None

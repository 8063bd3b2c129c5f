"""The pending record: an entry of the stream, which is a batch on its way to the database.

What can go wrong: the bytes are not a batch. Then the entry has no batch, and becomes a dead letter as it is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from .batch import Batch
from .batch_id import ulid_time
from .shard import Shard


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch in the stream. `batch` is None if the bytes, `raw`, are not a batch."""

    shard: Shard
    id: str
    batch: Batch | None
    raw: bytes

    @classmethod
    def read(cls, shard: Shard, id_: str, fields: Mapping[bytes, bytes]) -> Self:
        """Returns an entry from an answer of Redis."""
        return cls(shard, id_, _decoded(fields), fields.get(b"deltas", b""))

    @property
    def amount(self) -> int:
        """The amount that it adds."""
        return 0 if self.batch is None else self.batch.amount

    @property
    def place(self) -> str:
        """Its stream and its id, for messages."""
        return f"{self.shard.stream} {self.id}"


def _decoded(fields: Mapping[bytes, bytes]) -> Batch | None:
    try:
        deltas = json.loads(fields[b"deltas"])
        batch = fields[b"batch"].decode()
        ulid_time(batch)
        return Batch(batch, deltas) if all(type(delta) is int and delta > 0 for delta in deltas.values()) else None
    except (KeyError, ValueError, AttributeError, RecursionError):
        return None

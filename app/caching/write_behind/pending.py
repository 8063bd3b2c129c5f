"""The pending record: an entry of the stream, which is a batch on its way to the database.

What can go wrong: the bytes are no batch. Then the entry has none, and becomes a dead letter as it is.
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
    """A batch as it stands in the stream; `batch` is None where the bytes, `raw`, are none."""

    shard: Shard
    id: str
    batch: Batch | None
    raw: bytes

    @classmethod
    def read(cls, shard: Shard, id_: str, fields: Mapping[bytes, bytes]) -> Self:
        """An entry as Redis answers it."""
        return cls(shard, id_, _decoded(fields), fields.get(b"deltas", b""))

    @property
    def amount(self) -> int:
        """How much it adds."""
        return 0 if self.batch is None else self.batch.amount

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.shard.stream} {self.id}"


def _decoded(fields: Mapping[bytes, bytes]) -> Batch | None:
    try:
        deltas = json.loads(fields[b"deltas"])
        batch = fields[b"batch"].decode()
        ulid_time(batch)
        return Batch(batch, deltas) if all(type(delta) is int and delta > 0 for delta in deltas.values()) else None
    except (KeyError, ValueError, AttributeError, RecursionError):
        return None

"""Forget: entries that the database has leave the stream, and a new generation begins.

    flushed      the database and the stream both have the batch: another flush of it finds it in the ledger
    forgotten    acknowledged and deleted, in one step with the new generation: a total that is being built starts again

What can go wrong: Redis is down. Then the entries stay, and are forgotten later.
"""

import secrets
from collections.abc import Sequence

from ..errors import CacheUnavailable
from .life import Life
from .pending import Pending
from .place import Place
from .scripts import run, script
from .shard import GROUP, Shard
from .streams import is_no_stream


class Forgetting:
    """Forgets entries of one place, also in a Redis that is no longer believed: its entries are flushed, too."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._acknowledge, self._forget_totals = script(place.draining, "acknowledge"), script(place.draining, "forget")

    async def forget(self, entries: Sequence[Pending]) -> list[int]:
        """Forgets entries. Returns the amount of those that were still there, for each shard that has some. Each entry
        leaves the stream once, whichever flusher flushed it. Raises CacheUnavailable."""
        amounts = []
        for shard in self._place.shards:
            of_shard = [entry for entry in entries if entry.shard == shard]
            if of_shard:
                try:
                    amounts.append(await self._forget(shard, of_shard))
                except CacheUnavailable as error:
                    if not is_no_stream(error.__cause__):
                        raise  # Otherwise its entries are gone, and those of the other shards are still forgotten.
        return amounts

    async def forget_totals(self, entry: Pending) -> None:
        """Forgets the totals of the keys of a salvaged entry: dead letters no longer count in them. It must also do so
        if a process that died had salvaged the entry before. Raises CacheUnavailable."""
        shard, keys = entry.shard, list(entry.batch.amounts) if entry.batch else []
        args = [secrets.token_hex(8)]

        def question(life: Life) -> tuple[list[str | bytes], list[str]]:
            return [shard.generation, *(_total(shard, key, life) for key in keys)], args

        await run(self._forget_totals, question, self._place, drains=True)

    async def _forget(self, shard: Shard, entries: Sequence[Pending]) -> int:
        args: list[str | int] = [GROUP, secrets.token_hex(8)]
        for entry in entries:
            args += [entry.id, entry.batch.id if entry.batch else "", entry.amount, len(entry.raw)]
        keys = dict.fromkeys(key for entry in entries if entry.batch for key in entry.batch.amounts)
        names = [shard.stream, shard.generation, shard.backlog, shard.bytes]

        def question(life: Life) -> tuple[list[str | bytes], list[str | int]]:
            return [*names, *(_total(shard, key, life) for key in keys)], args

        return int(await run(self._acknowledge, question, self._place, drains=True))


def _total(shard: Shard, key: str, life: Life) -> bytes:
    # A key that is not valid text has become a dead letter and has no total. Its entry is still forgotten.
    return shard.total(key, life.name).encode(errors="surrogatepass")

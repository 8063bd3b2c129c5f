"""A slot on its way from one node of a cluster to another, held there for as long as a test needs it.

source   MIGRATING: has some of the keys, answers ASK for all others
target   IMPORTING: has the other keys, answers only after ASKING, and TRYAGAIN to scripts that need both kinds
"""

from collections.abc import Sequence

from redis.exceptions import ResponseError

from tests.eventually import eventually
from tests.faults.redis_node import HOST, RedisNode

TIMEOUT = 60_000


class MovingSlot:
    """One slot that moves."""

    def __init__(self, slot: int, source: RedisNode, target: RedisNode, others: Sequence[RedisNode]) -> None:
        self.slot, self.source, self.target, self._others = slot, source, target, others

    async def begin(self) -> None:
        """Opens the slot at both ends. No key moves yet.

        the source has a newer epoch than the target has heard of      the target takes over, in an epoch that is older
        the source's last message: the slot is mine                    the target believes that, and drops all keys
        """
        await self.target_knows()
        await self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        await self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)

    async def target_knows(self) -> None:
        """Returns when the target has heard of all epochs in which the others have taken over slots."""
        await eventually(self._target_is_up_to_date)

    async def move(self, keys: Sequence[str | bytes]) -> None:
        """Moves these keys."""
        if keys:
            await self.source.ask("MIGRATE", HOST, self.target.port, "", 0, TIMEOUT, "KEYS", *keys)

    async def move_all(self) -> None:
        """Moves the rest of the keys. No key is made at the source any more."""
        while keys := await self.keys():
            await self.move(keys)

    async def keys(self) -> list[bytes]:
        """Returns some of the keys that have not moved yet."""
        keys: list[bytes] = await self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, 100)
        return keys

    async def finish(self) -> None:
        """Moves the rest of the keys, and tells all primaries the new owner.

        They are told until all of them know it: a message of one that was not told yet may undo it.
        """
        await self.move_all()
        ignorant = [self.target, self.source, *self._others]
        while ignorant:
            for node in ignorant:
                await self._tell(node)
            ignorant = [node for node in ignorant if (await node.owners())[self.slot] != self.target.id]

    async def _target_is_up_to_date(self) -> bool:
        epochs = [await node.epoch("my") for node in (self.source, *self._others)]
        return await self.target.epoch("current") >= max(epochs)

    async def _tell(self, node: RedisNode) -> None:
        try:
            await node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)
        except ResponseError as error:
            # The target has told the source first. Without any slot left, the source becomes its replica.
            if node is not self.source or "only with masters" not in str(error):
                raise

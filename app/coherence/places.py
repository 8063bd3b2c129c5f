"""Where cached values are: one Redis, or the nodes of a cluster (`holders/nodes.py`).

    probe     asks each what it was told (`membership.py`)
    settle    in a cluster, which node holds which slot; one Redis holds everything

What can go wrong: `CacheUnavailable` if none of them answers.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from app.caching import Cache, Record, Seen
from app.coherence.epochs import Epoch, Epochs, Look
from app.coherence.membership import Membership

Heard = Mapping[Membership, Seen]
"""What each Redis that answered was told."""


class Places(Protocol):
    """All Redises of one service."""

    @property
    def caches(self) -> Sequence[Cache]:
        """The caches of all of them, whether they answer or not."""

    @property
    def claims(self) -> bool:
        """Whether this instance waits for a claim to slots that nobody has refuted yet."""

    def run(self, named: str | None) -> str | None:
        """Returns what Postgres should name as the Redis to trust, when it names `named`. None while that is
        unknown."""

    async def probe(self, token: str | None, position: int) -> Heard:
        """Asks each of them. Raises CacheUnavailable if none answers."""

    async def reconnect(self) -> None:
        """Makes the next questions on new connections."""

    def refutes(self, epoch: Epoch) -> bool:
        """Whether the claim in `epoch`, which is for other Redises than ours, is wrong: what it takes from ours
        is still theirs."""

    async def settle(self, epochs: Epochs, look: Look) -> Look:
        """Changes in Postgres who holds which slot, where that is due. Returns the newest poll of Postgres."""

    def enter(self, epoch: Epoch, joined: Sequence[Membership]) -> Sequence[Cache]:
        """Records who holds what in `epoch`. Returns the caches that may be trusted."""

    def told(self, caches: Collection[Cache]) -> None:
        """Records that these caches were told of every change, and are trusted."""

    def leave(self, why: str) -> None:
        """Stops all use of them."""


class OneRedis:
    """One Redis, known by its run."""

    claims = False

    def __init__(self, cache: Cache, record: Record) -> None:
        self.caches: Sequence[Cache] = [cache]
        self._standing = Membership(cache, record)

    def __str__(self) -> str:
        return f"run {self._standing.cache.identity.run}"

    def run(self, named: str | None) -> str | None:
        """Returns its run."""
        return self._standing.cache.identity.run

    async def probe(self, token: str | None, position: int) -> Heard:
        """Asks it. Raises CacheUnavailable if it does not answer."""
        return {self._standing: await self._standing.probe(token, position)}

    async def reconnect(self) -> None:
        """Makes the next questions on new connections."""
        await self._standing.cache.redis.connection_pool.disconnect(inuse_connections=False)

    def refutes(self, epoch: Epoch) -> bool:
        """Returns True: this Redis, which Postgres names, has just answered."""
        return True

    async def settle(self, epochs: Epochs, look: Look) -> Look:
        """Does nothing: there are no slots."""
        return look

    def enter(self, epoch: Epoch, joined: Sequence[Membership]) -> Sequence[Cache]:
        """Returns its cache."""
        return self.caches

    def told(self, caches: Collection[Cache]) -> None:
        """Does nothing: trust is all that it needs."""

    def leave(self, why: str) -> None:
        """Stops all use of it."""
        self._standing.refuse(why)

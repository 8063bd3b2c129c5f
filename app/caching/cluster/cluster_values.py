"""The calls of one region to a cluster: like `values.py`, but each key is asked for at the node that owns its slot.

    read     one GET for each key of a tick, in one write per node; a node's answer is judged by what is known of it
    write    one script call for each key, in one write per node

While a slot is half moved, a script with keys on both sides is refused. Then a read queries the database, a fill is
refused, and an invalidation or a revocation goes key by key (`half_moved.py`).

What can go wrong: `CacheUnavailable`, for the keys of a node that does not answer or may not be believed.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from ..background import Background
from ..cache import Cache
from ..errors import CacheError, CacheUnavailable, NotInvalidated
from ..lease import LEASE, Fill, K, Lease, Loaded
from ..lifetimes import Lifetimes, ms
from ..lookup import answered
from ..observing import Event
from ..reading import Outcome, Reading, V
from ..scripts import source
from ..values import FLOOR, entry
from .call import Call, Word
from .cluster import Cluster
from .cluster_belief import ClusterBelief
from .cluster_leases import ClusterLeases
from .each_node import EachNode
from .half_moved import invalidate_by_key, is_half_moved
from .judged import NotYet, judged
from .lists import lists
from .node import Node
from .node_batching import NodeBatching, Tell, unheard
from .node_stamps import NodeStamps
from .slot_map import slot_of

A = TypeVar("A")
R = TypeVar("R")

LOOKUP, FILL, INVALIDATE = source("lookup"), source("fill"), source("invalidate")


class ClusterValues(Generic[K, V]):
    """The values of one region in a cluster. `report` is told its events. Calls run in `background`."""

    def __init__(
        self,
        cluster: Cluster,
        prefix: str,
        name: str,
        type_: type[V],
        lifetimes: Lifetimes,
        report: Callable[[Event], None],
        background: Background,
    ) -> None:
        self.trust, self.identity = EachNode(), cluster.identity
        self._cluster = cluster
        self._sending = cluster.sending(name, lambda: report(Event.UNAVAILABLE))
        self._name, self._prefix, self._type, self._lifetimes = name, prefix, type_, lifetimes
        self._report, self._background = report, background
        self._stamp = NodeStamps(type_).of
        belief = ClusterBelief(cluster, name, self._slot)
        self.losses, self.tell, self.sure, self._at = belief.losses, belief.tell, belief.sure, belief.at
        leases = ClusterLeases(self._sending, self.names, background)
        self.claim, self.revoke = leases.claim, leases.revoke
        self.release, self.give_back = leases.release, leases.give_back

    def name(self, key: K) -> str:
        """Returns the name of a value."""
        # Redis takes no hash tag from {}: it would put the three names of such a key in three slots.
        if isinstance(key, str) and key[:1] in ("", "}"):
            return f"{self._prefix}:{{+}}:{{{key}}}"
        return f"{self._prefix}:{{{key}}}"

    def names(self, key: K) -> tuple[str, str, str]:
        """Returns the names of a value, of its lease and of its floor, which share a slot."""
        name = self.name(key)
        return name, name + ":lease", name + ":floor"

    def batching(
        self,
        call: Callable[..., Awaitable[Sequence[R | CacheError]]],
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> NodeBatching[A, R]:
        """Combines the calls made in one tick of the event loop. A silent node delays those for its own slots."""
        return NodeBatching(call, self._background.start, told)

    def place(self, key: K) -> Cache | None:
        """Returns the cache of the node that has this key, None if none is known to hold its slot."""
        return self._cluster.place(self.name(key))

    async def get_all(self, keys: Sequence[K], tell: Tell = unheard) -> Sequence[Reading[V] | CacheError | None]:
        """Returns the fresh values under some keys."""  # Debts are read before: a retry may succeed meanwhile.
        owed = [self._owed(key) for key in keys] if len(self._cluster.owed) else None
        found: dict[int, Reading[V] | CacheError | None] = {}
        verified = self._cluster.nodes.verified

        def told(places: Sequence[int], node: Node | None, replies: Sequence[Any]) -> None:
            readings = self._read(node, replies, verified)
            if owed is not None:
                readings = [owed[place] or reading for place, reading in zip(places, readings, strict=True)]
            found.update(zip(places, readings, strict=True))
            tell(places, readings)

        await self._sending.tell(Call.gets(map(self.name, keys)), told)
        return [found[place] for place in range(len(keys))]

    async def get_lists(
        self, lists_: Sequence[Sequence[K]], tell: Tell = unheard
    ) -> Sequence[Sequence[Reading[V] | None] | CacheError]:
        """Returns the fresh values under each list of keys. What a node does not answer counts as missing. An error
        stands in the place of a list of which nothing is answered."""
        return await lists(self.get_all, lists_, tell)

    async def look_up(self, keys: Sequence[K], tell: Tell = unheard) -> Sequence[Reading[V] | Lease[V] | CacheError]:
        """Returns the value of each key, or the lease of its load."""
        token, verified = secrets.token_hex(8), self._cluster.nodes.verified
        calls = [
            Call.run(LOOKUP, self.names(key)[:2], [token, self._stamp(self._owner(key)).word, ms(LEASE)])
            for key in keys
        ]
        owed = [self._owed(key) for key in keys]

        def judge(place: int, node: Node | None, reply: Any) -> Reading[V] | Lease[V] | CacheError:
            failed: CacheUnavailable | None = reply if isinstance(reply, CacheUnavailable) else owed[place]
            if node is None or failed is not None:
                self.give_back([keys[place]], token)  # Perhaps only the answer was lost: nobody knows of the lease.
                return failed or reply
            now, said = reply
            node.cache.clock.set(now)
            found = answered(self._stamp(node), node.cache.clock, verified.get(node, False), *said)
            if found is None:  # Damaged, or of another node's life.
                raise NotYet
            return found

        found, rotten = await judged(self._sending, calls, judge, tell)
        if rotten:  # Once deleted, it is an ordinary miss.
            names = [self.name(keys[place]) for place in rotten]
            await self._sending.send([Call.of(name, "DEL", name) for name in names])
            again = await self.look_up([keys[place] for place in rotten])
            tell(rotten, again)
            found.update(zip(rotten, again, strict=True))
        return [found[place] for place in range(len(keys))]

    async def fill_all(self, fills: Sequence[Loaded[K]], tell: Tell = unheard) -> Sequence[Fill | CacheError]:
        """Caches loaded rows, each under its lease."""
        calls, owners = [], [self._owner(fill.key) for fill in fills]
        for fill, owner in zip(fills, owners, strict=True):
            stamp = self._stamp(owner)
            args = [stamp.word, stamp.life_word, *entry(fill, self._lifetimes)]
            calls.append(Call.run(FILL, self.names(fill.key), args))

        def judge(place: int, node: Node | None, reply: Any) -> Fill | CacheError:
            if isinstance(reply, CacheUnavailable):
                return reply
            # Stamped for another node than the one that has it, nobody believes it.
            return Fill(reply[0].decode()) if node is owners[place] else Fill.LOST

        filled, _ = await judged(self._sending, calls, judge, tell)
        return [filled[place] for place in range(len(fills))]

    async def invalidate_all(
        self, changes: Sequence[tuple[K, int]], tell: Tell = unheard
    ) -> Sequence[CacheError | None]:
        """Removes each value that is not of its committed version, also at a node that is not believed."""
        lives = [self._stamp(self._owner(key)).life_word for key, _version in changes]
        args: list[list[Word]] = [[ms(FLOOR), life, change[1]] for life, change in zip(lives, changes, strict=True)]
        calls = [Call.run(INVALIDATE, self.names(change[0]), some) for change, some in zip(changes, args, strict=True)]
        ask = partial(self._sending.one, believed=False)

        def judge(place: int, node: Node | None, reply: Any) -> CacheError | None:
            if is_half_moved(reply):
                raise NotYet
            return reply if isinstance(reply, CacheUnavailable) else None

        async def by_key(place: int) -> None:
            failed[place] = error = await invalidate_by_key(ask, *self.names(changes[place][0])[:2])
            tell([place], [error])

        failed, half_moved = await judged(self._sending, calls, judge, tell, believed=False)
        await asyncio.gather(*map(by_key, half_moved))
        return [failed[place] for place in range(len(changes))]

    def owe(self, key: K, version: int, invalidate: Callable[[], Awaitable[None]]) -> NotInvalidated:
        """Records a failed invalidation, which is retried. Returns the exception to raise."""
        return self._cluster.owed.add(self._name, key, version, invalidate)

    def _read(
        self, node: Node | None, replies: Sequence[Any], verified: Mapping[Node, bool]
    ) -> Sequence[Reading[V] | CacheError | None]:
        """Returns what a node has answered to GETs, if its hits were `verified` before."""
        if node is None:
            return replies
        stamp, is_verified = self._stamp(node), verified.get(node, False)
        word, now = stamp.word, node.cache.clock.now()
        readings: list[Reading[V] | CacheError | None] = []
        for raw in replies:
            if raw is None or isinstance(raw, CacheUnavailable):
                readings.append(raw)
                continue
            reading = stamp.read(raw, Outcome.HIT, is_verified, word, now)
            if reading is None:
                self._report(Event.FOREIGN)
            readings.append(None if reading is None or reading.ttl_ms <= 0 else reading)
        return readings

    def _owed(self, key: K) -> CacheUnavailable | None:
        """Returns why a key is not read here: this process owes it an invalidation, and reads its own writes."""
        if not self._cluster.owed.includes(self._name, key):
            return None
        return CacheUnavailable(f"An invalidation of {self._name} {key} failed, and is retried.")

    def _owner(self, key: K) -> Node | None:
        """Returns the node that is known to own a key, None if it is not known or not open."""
        return self._at(self._slot(key))

    def _slot(self, key: K) -> int:
        return slot_of(self.name(key))

"""The calls of one region to a cluster: like `values.py`, but each key is asked for at the node that owns its slot.

    read     one GET for each key of a tick, in one write per node; a node's answer is judged by what is known of it
    write    one script call for each key, in one write per node

While a slot is half moved, a script with keys on both sides is refused. Then a read queries the database, a fill is
refused, and an invalidation or a revocation goes key by key (`half_moved.py`).

What can go wrong: `CacheUnavailable`, for the keys of a node that does not answer or may not be believed.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from ..background import Background
from ..cache import Cache
from ..errors import CacheError, CacheUnavailable, NotInvalidated
from ..identity import Identity
from ..lease import LEASE, Fill, K, Lease, Loaded
from ..lifetimes import Lifetimes, ms
from ..lookup import answered
from ..observing import Event
from ..reading import Outcome, Reading, V
from ..scripts import source
from ..stamp import Stamp
from ..trust import Trust
from ..values import FLOOR, entry, names_of
from .answer import Answer
from .call import Call, Word
from .cluster import Cluster
from .each_node import EachNode
from .half_moved import invalidate_by_key, is_half_moved, revoke_by_key
from .node import Node
from .node_batching import NodeBatching
from .sending import REDIRECTIONS
from .slot_map import slot_of

A = TypeVar("A")
R = TypeVar("R")

LOOKUP, FILL, INVALIDATE = source("lookup"), source("fill"), source("invalidate")
REVOKE, RELEASE = source("revoke"), source("release")


class ClusterValues(Generic[K, V]):
    """The values of one region in a cluster. `report` is called with its events. Calls run in `background`."""

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
        self._cluster, self._topology, self._holds = cluster, cluster.topology, cluster.holds
        self._sending = cluster.sending(name, lambda: report(Event.UNAVAILABLE))
        self._name, self._prefix, self._type, self._lifetimes = name, prefix, type_, lifetimes
        self._report, self._background = report, background
        self._nowhere = Stamp(type_, Identity(Trust()))
        self._stamps: WeakKeyDictionary[Node, Stamp[V]] = WeakKeyDictionary()

    def names(self, key: K) -> tuple[str, str, str]:
        """Returns the names of a value, of its lease and of its floor, which share a slot."""
        # Redis takes no hash tag from {}: it would put the three names of such a key in three slots.
        tagged = not isinstance(key, str) or key[:1] not in ("", "}")
        return names_of(self._prefix if tagged else f"{self._prefix}:{{+}}", key)

    def batching(
        self,
        call: Callable[[Sequence[A]], Awaitable[Sequence[R | CacheError]]],
        key: Callable[[A], K],
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> NodeBatching[A, R]:
        """Combines the calls made in one tick of the event loop, for each node."""
        return NodeBatching(
            self._topology, lambda about: slot_of(self.names(key(about))[0]), call, self._background.start, told
        )

    def losses(self, key: K) -> object:
        """Returns a mark that changes when the trust in the node of this key is lost, or it has another node."""
        slot = self._slot(key)
        node, held = self._at(slot), 0 if self._holds is None else self._holds.mark(slot)
        return object() if node is None else (node, node.cache.trust.losses, held)

    def place(self, key: K) -> Cache | None:
        """Returns the cache of the node that has this key, None if none is known to hold its slot."""
        return self._cluster.place(self.names(key)[0])

    async def get_all(self, keys: Sequence[K]) -> Sequence[Reading[V] | CacheError | None]:
        """Returns the fresh values under some keys."""
        owed = [self._owed(key) for key in keys]  # Before the GET: a retry may succeed while its answer is on its way.
        answers = await self._sending.send([Call.get(self.names(key)[0]) for key in keys])
        return [debt or self._read(answer) for debt, answer in zip(owed, answers, strict=True)]

    async def get_lists(self, lists: Sequence[Sequence[K]]) -> Sequence[Sequence[Reading[V] | None]]:
        """Returns the fresh values under each list of keys. What a node does not answer counts as missing. Raises
        CacheUnavailable if none answers."""
        keys = list(dict.fromkeys(key for some in lists for key in some))
        answers = await self.get_all(keys)
        failed = [answer for answer in answers if isinstance(answer, CacheError)]
        if failed and len(failed) == len(keys):
            raise failed[0]
        found = {key: None if isinstance(one, CacheError) else one for key, one in zip(keys, answers, strict=True)}
        return [[found[key] for key in some] for some in lists]

    async def look_up(self, keys: Sequence[K]) -> Sequence[Reading[V] | Lease[V] | CacheError]:
        """Returns the value of each key, or the lease of its load."""
        token = secrets.token_hex(8)
        calls = [
            Call.run(LOOKUP, self.names(key)[:2], [token, self._stamp(self._owner(key)).word, ms(LEASE)])
            for key in keys
        ]
        found: list[Reading[V] | Lease[V] | CacheError | None] = []
        owed = [self._owed(key) for key in keys]
        for key, debt, answer in zip(keys, owed, await self._sending.send(calls), strict=True):
            failed = answer if isinstance(answer, CacheUnavailable) else debt
            if failed is not None or isinstance(answer, CacheUnavailable):
                self.give_back([key], token)  # Perhaps only the answer was lost, and nobody knows of the lease.
                found.append(failed)
            else:
                (now, said), node = answer
                node.cache.clock.set(now)
                found.append(answered(self._stamp(node), node.cache.clock, node.cache.trust.verified, *said))
        rotten = [key for key, reading in zip(keys, found, strict=True) if reading is None]
        if not rotten:
            return [reading for reading in found if reading is not None]
        # Damaged, or of another node's life. Once deleted, it is an ordinary miss.
        await self._sending.send([Call.of(name, "DEL", name) for name in (self.names(key)[0] for key in rotten)])
        again = iter(await self.look_up(rotten))
        return [next(again) if reading is None else reading for reading in found]

    async def claim(self, key: K, token: str) -> bool:
        """Takes the lease of a key, if it is free, and returns whether it was."""
        lease = self.names(key)[1]
        try:
            return bool(await self._one(Call.of(lease, "SET", lease, token, "NX", "PX", ms(LEASE))))
        except CacheUnavailable:
            self.give_back([key], token)
            raise

    async def revoke(self, key: K, token: str) -> None:
        """Removes a value, and takes over its lease."""
        name, lease, _floor = self.names(key)
        try:
            await self._one(Call.run(REVOKE, [name, lease], [token, ms(LEASE)]), persistent=True)
        except CacheUnavailable as error:
            if not is_half_moved(error):
                raise
            await revoke_by_key(self._one, name, lease, token)

    def give_back(self, keys: Sequence[K], token: str) -> None:
        """Releases leases in the background."""
        self._background.start(self.release(keys, token))

    async def release(self, keys: Sequence[K], token: str) -> None:
        """Releases the leases that have this token. Never raises: leases end by themselves."""
        with suppress(CacheUnavailable):  # The failure was counted.
            await self._sending.send([Call.run(RELEASE, [self.names(key)[1]], [token]) for key in keys], believed=False)

    async def fill_all(self, fills: Sequence[Loaded[K]]) -> Sequence[Fill | CacheError]:
        """Caches loaded rows, each under its lease."""
        calls, owners = [], [self._owner(fill.key) for fill in fills]
        for fill, owner in zip(fills, owners, strict=True):
            stamp = self._stamp(owner)
            args = [stamp.word, stamp.life_word, *entry(fill, self._lifetimes)]
            calls.append(Call.run(FILL, self.names(fill.key), args))
        filled: list[Fill | CacheError] = []
        for answer, owner in zip(await self._sending.send(calls), owners, strict=True):
            if isinstance(answer, CacheUnavailable):
                filled.append(answer)
            else:  # Stamped for another node than the one that has it, nobody believes it.
                filled.append(Fill(answer.reply[0].decode()) if answer.node is owner else Fill.LOST)
        return filled

    async def invalidate_all(self, changes: Sequence[tuple[K, int]]) -> Sequence[CacheError | None]:
        """Removes each value that is not of its committed version, also at a node that is not believed."""
        lives = [self._stamp(self._owner(key)).life_word for key, _version in changes]
        args: list[list[Word]] = [[ms(FLOOR), life, change[1]] for life, change in zip(lives, changes, strict=True)]
        calls = [Call.run(INVALIDATE, self.names(change[0]), some) for change, some in zip(changes, args, strict=True)]
        ask = partial(self._one, believed=False)
        done: list[CacheError | None] = []
        for (key, _version), answer in zip(changes, await self._sending.send(calls, believed=False), strict=True):
            failed = answer if isinstance(answer, CacheUnavailable) else None
            done.append(await invalidate_by_key(ask, *self.names(key)[:2]) if is_half_moved(failed) else failed)
        return done

    async def tell(self, key: K, call: Callable[[], Awaitable[None]]) -> None:
        """Makes a call about `key`, which counts only if the same node is believed before and after it, as `asking.py`
        shows for one Redis. It is made again if the slot has another node meanwhile."""
        slot = self._slot(key)
        for _attempt in range(REDIRECTIONS):
            node, mark = self._at(slot), 0 if self._holds is None else self._holds.mark(slot)
            if node is None or (self._holds is not None and self._holds.holder(slot) is not node):
                break
            trust, identity = node.cache.trust, node.cache.identity
            losses, life = trust.losses, identity.life
            if not trust.lost:
                await trust.believed()
            await call()
            await trust.believed()
            if losses != trust.losses or life != identity.life:
                raise CacheUnavailable(f"The node that has {self._name} {key} is not believed: {trust.why}.")
            if self._at(slot) is node and (self._holds is None or self._holds.mark(slot) == mark):
                return
        raise CacheUnavailable(f"It is not known which node of the cluster has {self._name} {key}.")

    def owe(self, key: K, version: int, invalidate: Callable[[], Awaitable[None]]) -> NotInvalidated:
        """Records a failed invalidation, which is retried. Returns the exception to raise."""
        return self._cluster.owed.add(self._name, key, version, invalidate)

    def _read(self, answer: Answer | CacheUnavailable) -> Reading[V] | CacheError | None:
        if isinstance(answer, CacheUnavailable):
            return answer
        raw, node = answer
        if raw is None:
            return None
        cache, stamp = node.cache, self._stamp(node)
        reading = stamp.read(raw, Outcome.HIT, cache.trust.verified, stamp.word, cache.clock.now())
        if reading is None:
            self._report(Event.FOREIGN)
        return None if reading is None or reading.ttl_ms <= 0 else reading

    async def _one(self, call: Call, *, believed: bool = True, persistent: bool = False) -> object:
        (answer,) = await self._sending.send([call], believed=believed, persistent=persistent)
        if isinstance(answer, CacheUnavailable):
            raise answer
        return answer.reply

    def _owed(self, key: K) -> CacheUnavailable | None:
        """Returns why a key is not read here: this process owes it an invalidation, and reads its own writes."""
        if not self._cluster.owed.includes(self._name, key):
            return None
        return CacheUnavailable(f"An invalidation of {self._name} {key} failed, and is retried.")

    def _stamp(self, node: Node | None) -> Stamp[V]:
        """Returns the stamp of a node. Nobody believes what is stamped while the node is not known."""
        if node is None:
            return self._nowhere
        stamp = self._stamps.get(node)
        if stamp is None:
            stamp = self._stamps[node] = Stamp(self._type, node.cache.identity)
        return stamp

    def _owner(self, key: K) -> Node | None:
        """Returns the node that is known to own a key, None if it is not known or not open."""
        return self._at(self._slot(key))

    def _at(self, slot: int) -> Node | None:
        address = self._topology.map.owner(slot)
        return None if address is None else self._cluster.nodes.get(address)

    def _slot(self, key: K) -> int:
        return slot_of(self.names(key)[0])

"""One node of a cluster, asked at each poll: what it says of itself, and what it was told.

    ask     INFO, CLUSTER INFO, CLUSTER NODES in one write → the record, if the node owns any slot

The record (`record.py`) is under a name in one of the node's own slots: the first of `epoch:{0}`, `epoch:{1}`, … All
instances find the same one.

What can go wrong: `CacheUnavailable` if the node does not answer, or is another run than its connections were made to.
"""

import asyncio
from itertools import count

from app.caching import CacheUnavailable, Record, Seen
from app.caching.cluster import Node
from app.caching.cluster.exchange import exchange
from app.caching.cluster.slot_map import slot_of
from app.coherence.holders.word import QUESTIONS, Word
from app.coherence.membership import Membership

PATIENCE = 5
"""How many answers in a row may be late."""
RECORD = "epoch:{{{}}}"
"""The names of records: the node has the first whose slot it owns."""


class Member:
    """A node, as the relay knows it. The names in Redis begin with `prefix`."""

    def __init__(self, node: Node, prefix: str) -> None:
        self.node, self._prefix = node, prefix
        self.membership = Membership(node.cache, self._record("epoch"))
        self.id: str | None = None
        """The id of the node, once it has said it."""
        self.word: Word | None = None
        """What it said last, None if its last question has failed."""
        self.seen: Seen | None = None
        """What it was told, None if it has no record."""
        self.asking: asyncio.Task[None] | None = None
        """The question that has no answer yet."""
        self.misses = 0
        """How many polls in a row its answer was late for."""
        self._known: tuple[str, str | None] | None = None

    async def ask(self, token: str | None, position: int) -> None:
        """Asks the node. Raises CacheUnavailable."""
        try:
            await self._ask(token, position)
        except CacheUnavailable:
            self.word = self.seen = None
            raise

    def was_late(self) -> None:
        """Counts an answer that was late. Readers do not wait for news of a node that always is."""
        self.misses += 1
        if self.misses == PATIENCE and not self.node.cache.trust.lost:
            self.node.cache.trust.lose("it answers too slowly")

    async def _ask(self, token: str | None, position: int) -> None:
        cache, told, seen = self.node.cache, self.word, None
        with self.node:
            word = await cache.breaker.probe(cache.redis, self._said)
            run = cache.identity.run or ""
            if not run.endswith(word.replication[:8]):
                #     X becomes a replica of Y      a value is invalidated on Y, which dies before X has heard of it
                #     X is the primary again        connections to X never broke, and X has the old value of its run
                cache.trust.lose("it was a replica, and is a primary again")
                raise CacheUnavailable("A node of the cluster is another one than before.")
            if word.counts and self._find_record(word, told):
                seen = await self.membership.probe(token, position)
            elif not word.counts and not cache.trust.lost:
                cache.trust.lose("it is a replica" if not word.is_primary else "it is cut off from its cluster")
        self.id, self.word, self.seen = word.id, word, seen

    async def _said(self) -> Word:
        return Word.read(await exchange(self.node.cache.redis, QUESTIONS))

    def _find_record(self, word: Word, told: Word | None) -> bool:
        """Finds the record, and forgets what was known of another one, or of another run. Returns whether there can be
        one: a slot that is on its way to another node has none."""
        run = self.node.cache.identity.run
        if self._known is None or told is None or told.slots != word.slots or self._known[1] != run:
            slots = word.kept()
            if not slots:
                self._known = None
                return False
            name = next(name for name in map(RECORD.format, count()) if slot_of(self._prefix + name) in slots)
            if self._known != (name, run):
                self._known = name, run
                self.membership.record = self._record(name)
        return True

    def _record(self, name: str) -> Record:
        return Record(self.node.cache.redis, self._prefix + name, self.node.cache.clock)

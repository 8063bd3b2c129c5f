"""The nodes of a cluster, as the places of one service: asked at each poll, and believed about what they hold.

    probe     asks every node that owns or holds a slot, each in its own time: a silent one delays no other
    settle    changes in Postgres who holds which slot, where that is due (`changes.py`)
    enter     believes each node about what it holds, and also says that it owns

What can go wrong: a holder has died. Its slots have no believed holder until another node owns them, and a claim to
them has stood for `SETTLED`. All others stay as they are.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta

from app.caching import Cache, CacheUnavailable, Seen
from app.caching.cluster import Cluster, Node
from app.coherence.candidacy import Candidacy
from app.coherence.epochs import Epoch, Epochs, Look
from app.coherence.holders.changes import Changes, owners_of, takes_from
from app.coherence.holders.member import Member
from app.coherence.holders.view import View
from app.coherence.holders.word import Word
from app.coherence.membership import Membership
from app.coherence.places import Heard

PATIENCE = timedelta(milliseconds=200)
"""How long a poll waits for a node that it asks. The others are not trusted before. Together with the pause between two
polls, less than trust lasts. A node that is late is soon not trusted, and is silent once its question has failed."""
AT_ONCE = 5
"""How many changes one poll makes."""


class ClusterNodes:
    """All nodes of `cluster`. The names in Redis begin with `prefix`."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        assert cluster.holds is not None
        self._cluster, self._holds, self._prefix = cluster, cluster.holds, prefix
        self._members: dict[Node, Member] = {}
        self._words: dict[str, Word] = {}
        """What each node that answered the last probe has said, by its id."""
        self._late: dict[str, Word] = {}
        """What each node whose answer is late has said before, by its id."""
        self._heard_any = False
        self._holders: set[str | None] = set()
        self._candidacy: Candidacy | None = None
        self._n = 0
        """The number of the epoch when slots were settled last."""
        self._compared: tuple[object, Changes] | None = None
        self._entered: tuple[Changes, dict[str, Node]] | None = None

    def __str__(self) -> str:
        return f"{len(self._words)} nodes"

    @property
    def caches(self) -> Sequence[Cache]:
        """The caches of all open nodes."""
        return self._cluster.caches

    @property
    def claims(self) -> bool:
        """Whether this instance waits for a claim to slots that nobody has refuted yet."""
        return self._candidacy is not None and self._candidacy.claim.token is not None

    def run(self, named: str | None) -> str | None:
        """Returns `named` if it is a view, as that is changed slot by slot; else a view in which each slot is held by
        its owner. None if no owner is known."""
        if named is not None and View.read(named) is not None:
            return named
        owners = owners_of(self._words)
        return str(View(owners, {})) if any(owners) else None

    async def probe(self, token: str | None, position: int) -> Heard:
        """Asks each node. Raises CacheUnavailable if none answers."""
        await self._open()
        asked: list[asyncio.Task[None]] = []
        for member in self._members.values():
            if member.asking is None or member.asking.done():
                member.asking = self._cluster.nodes.start(member.ask(token, position))
                member.asking.add_done_callback(lambda task: task.cancelled() or task.exception())
                asked.append(member.asking)
        if asked:
            # Before the first answer, there is no trust that could end.
            done, late = await asyncio.wait(asked, timeout=PATIENCE.total_seconds() if self._heard_any else None)
            # If all are late, it is not they who are slow, but this process, or its network.
            while late and all(task.exception() for task in done):
                done, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
        heard: dict[Membership, Seen] = {}
        self._words, self._late = {}, {}
        for member in self._members.values():
            word = member.word
            if word is None or member.asking is None:
                continue
            if not member.asking.done():
                self._late[word.id] = word
                member.was_late()
            elif member.asking in asked:
                self._words[word.id] = word
                member.misses = 0
                if member.seen is not None:
                    heard[member.membership] = member.seen
        self._heard_any = self._heard_any or bool(self._words)
        if not self._words:
            raise CacheUnavailable("No node of the cluster answers.")
        return heard

    async def reconnect(self) -> None:
        """Makes the next questions on new connections."""
        for cache in self.caches:
            await cache.redis.connection_pool.disconnect(inuse_connections=False)

    def refutes(self, epoch: Epoch) -> bool:
        """Whether a node that loses slots by the claim in `epoch` has just said that it owns them. A claim for one
        Redis, or for another cluster, takes all slots."""
        view, claimed = View.read(epoch.run), View.read(epoch.claimed_run or "")
        if view is None or epoch.claim is None:
            return False
        changes = self._changes(epoch.run)
        heard = [id_ if id_ in self._words else None for id_ in changes.believed]
        return any(heard[slot] for slot in (range(len(heard)) if claimed is None else takes_from(view, claimed)))

    async def settle(self, epochs: Epochs, look: Look) -> Look:
        """Hands slots over, claims those of silent nodes, and gives them away when a claim has stood. Returns the
        newest poll of Postgres. What it decides is about words that are older than that."""
        candidacy = self._candidacy = self._candidacy or Candidacy(epochs)
        for _change in range(AT_ONCE):
            epoch = look.epoch
            if epoch is None or not await self._change(epochs, candidacy, epoch):
                break
            look = await epochs.look()
        return look

    async def _change(self, epochs: Epochs, candidacy: Candidacy, epoch: Epoch) -> bool:
        """Makes one change that is due, and returns whether the epoch may have changed."""
        known, self._n = self._n == epoch.n, epoch.n
        if not known:
            candidacy.end()  # A claim that is gone was not refuted, but has become what stands now.
        candidacy.sees(candidacy.claim, epoch.claim)
        changes = self._changes(epoch.run)
        if epoch.claim is None and changes.handed is not None:
            # The words must be younger than what they change:
            #
            #   A hears that X has given the slot to Y, and stalls      Y gets it, loses it again, and X holds it
            #   A would hand it over to Y at once
            if known and await epochs.hand_over(epoch, str(changes.handed)):
                self._n += 1
            return known
        if not changes.claims:
            if epoch.claim is not None and changes.handed is not None and View.read(epoch.claimed_run or ""):
                await epochs.refute(epoch)  # Its holder is back, and has given the slots away: they are handed over.
                return True
            return False
        claimed, view = View.read(epoch.claimed_run or ""), View.read(epoch.run)
        if epoch.claim is not None and claimed is not None and view is not None:
            # A claim of any instance, if it is for a node that has just said that it owns the slots.
            slots, owners = takes_from(view, claimed), owners_of(self._words)
            is_apt = any(owners[slot] == claimed.holders[slot] for slot in slots) and not self.refutes(epoch)
            if is_apt and candidacy.stood:
                await epochs.promote(epoch)
                return True
            if is_apt:
                return False
        if not candidacy.pauses:
            # One silent holder at a time, in any order: a member that hears one of them refutes the claim for it.
            await candidacy.claimed(epoch, str(changes.claims[random.choice(list(changes.claims))]))
        return False

    def enter(self, epoch: Epoch, joined: Sequence[Membership]) -> Sequence[Cache]:
        """Believes the nodes that have joined about the slots that they hold. Returns their caches, and those of nodes
        without slots."""
        view = View.read(epoch.run)
        assert view is not None
        self._cluster.identity.epoch, self._cluster.identity.refused = epoch.token, None
        entered, late = dict[str, Node](), dict[str, Node]()
        for member in self._members.values():
            if member.word is None:
                continue
            if member.word.id in self._late:
                late[member.word.id] = member.node
                continue
            if self._words.get(member.word.id) is not member.word:
                continue
            if member.seen is None and member.word.counts and not member.word.slots:
                member.membership.enter(epoch.token)
            elif member.membership not in joined:
                continue
            member.node.cache.identity.term = view.terms.get(member.word.id, 0)
            entered[member.word.id] = member.node
        holders = entered | {id_: node for id_, node in late.items() if node.cache.identity.refused is None}
        changes = self._changes(epoch.run)
        if self._entered != (changes, holders):
            self._entered = changes, holders
            self._holders = set(view.holders)
            self._holds.become([None if id_ is None else holders.get(id_) for id_ in changes.believed])
        return [node.cache for node in entered.values()]

    def told(self, caches: Collection[Cache]) -> None:
        """Believes some nodes also about the slots that they have gained: they were told of every change there."""
        self._holds.told([node for node in self._members if node.cache in caches])

    def leave(self, why: str) -> None:
        """Believes no node any more."""
        self._cluster.identity.refused = why
        for cache in self.caches:
            cache.trust.lose(why)
            cache.identity.refused = why

    def _changes(self, run: str) -> Changes:
        """Compares what Postgres says with what the nodes say. It is compared again only if one of both has changed."""
        compared = run, frozenset(self._words.values()), frozenset(self._late.values())
        if self._compared is None or self._compared[0] != compared:
            view = View.read(run)
            assert view is not None
            self._compared = compared, Changes.between(view, self._words, self._late)
        return self._compared[1]

    async def _open(self) -> None:
        """Opens the nodes to ask: those that own slots, those that hold some, and those to which calls were sent."""
        owners = self._cluster.topology.map.owners
        nodes = []
        for address in owners:
            with suppress(CacheUnavailable):  # One of an impossible address must not keep the others from being asked.
                nodes.append(await self._cluster.nodes.at(address))
        for node in self._cluster.nodes.all:
            member = self._members.get(node)
            node.asked = node.asked or (member is not None and member.id in self._holders)
            nodes.append(node)
        self._members = {node: self._members.get(node) or Member(node, self._prefix) for node in dict.fromkeys(nodes)}

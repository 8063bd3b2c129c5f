"""Which Redis is trusted with which history of Postgres: one epoch after the other, never two at a time.

    Postgres holds the epochs    the newest one names the trusted run of Redis and the history of Postgres
    Redis holds a record         it names the epoch that was last written to this Redis

An instance is a member when both agree, and match what it finds: its connection leads to that run, and its Postgres has
that history. An instance that finds anything else claims the next epoch, in both stores, and waits:

    A finds Y, where the epoch names X                B trusts X
    A claims the next epoch in Postgres               B polls, finds the claim, and removes it: A stays outside
                                                      … or B is gone, or has lost X: nobody removes the claim
    A waits for SETTLED: an instance that polled before the claim has lost trust, one that polls later sees the claim
    A begins the next epoch with Y                    B, if it comes back, finds an epoch that is not its own

So one wait does two things: it gives members time to object, and lets the trust of all others end. The claim in
Postgres reaches the instances that share the database. The claim in Redis reaches those that share the Redis but come
from another database or an old primary.

A claim is not refuted when it reports news: this Redis, or this Postgres, is not what it was (a restored snapshot, a
promoted standby). A member that finds such a claim leaves its epoch and claims as well. Nothing is banned: a run or a
history may return in a later epoch.

In a cluster, Postgres names the holder of each slot in place of a run (`holders/`), and each node has a record.

What can go wrong: an instance without Postgres sees no claim there. Its hits are marked as unverified.
"""

import logging
import secrets
from collections.abc import Sequence

from app.caching import Cache, CacheUnavailable, Seen
from app.caching.errors import Outside
from app.coherence.candidacy import Candidacy
from app.coherence.epochs import Epoch, Epochs, Look
from app.coherence.histories import goes_on
from app.coherence.joined import Joined
from app.coherence.membership import ANOTHER, NEWS, Membership, Superseded, is_behind, is_over
from app.coherence.next_epoch import claim_next
from app.coherence.places import Heard, Places
from app.database import Database
from app.errors import StandbyMet

logger = logging.getLogger(__name__)


class Succession:
    """One instance's knowledge of the epochs. Sets in the identity of each cache its epoch, or why it is in none."""

    def __init__(self, epochs: Epochs, places: Places, database: Database) -> None:
        """`database` is the one that serves requests. Each epoch makes its connections anew."""
        self._epochs, self._places, self._database = epochs, places, database
        self.epoch: Epoch | None = None
        """The epoch that this instance was last a member of."""
        self._position = 0
        self._looked = False
        """Whether Postgres has ever answered."""
        self._over: str | None = None
        """The token of the epoch that ended because a store went back in time."""
        self._candidacy = Candidacy(epochs)
        self._memberships: Sequence[Membership] = ()
        """Those that answered last."""

    @property
    def caches(self) -> Sequence[Cache]:
        """All caches, whether they answer or not."""
        return self._places.caches

    @property
    def claims(self) -> bool:
        """Whether this instance waits for a claim that nobody has refuted yet."""
        waits = [self._candidacy.claim, *(membership.claim for membership in self._memberships)]
        return self._places.claims or any(claim.token is not None for claim in waits)

    async def probe(self) -> Heard:
        """Reads the record in each Redis and leaves a beat. Raises CacheUnavailable when none answers."""
        token = None if self.epoch is None else self.epoch.token
        heard = await self._places.probe(token, self._position)
        if token is not None and any(is_over(seen, token) for seen in heard.values()):
            self._over = token
        self._memberships = list(heard)
        return heard

    def holds(self, membership: Membership, seen: Seen) -> bool:
        """Returns whether Redis gives no reason to leave the epoch. Without Postgres, nothing more can be known."""
        if self.epoch is None:
            if not self._looked:
                # Take the record's word for the epoch, but only to accept views: they are flushed when Postgres is
                # back. An instance that Postgres has answered, and that is no member, knows why it is not.
                membership.cache.identity.epoch, membership.cache.identity.refused = seen.epoch, None
            return False
        return seen.epoch == self.epoch.token != self._over and seen.claim is None

    async def look(self) -> Look:
        """Polls Postgres, and begins the first epoch if there is none. Raises DatabaseUnavailable."""
        look = await self._epochs.look()
        self._looked = True
        if look.standby:
            raise StandbyMet("Postgres is a standby, and not the primary.")
        if look.epoch is None and (run := self._places.run(None)) is not None:
            await self._epochs.first(secrets.token_hex(8), run, look.history)
            look = await self._epochs.look()
        return look

    async def join(self, look: Look, heard: Heard) -> Joined:
        """Returns the epoch that this instance is a member of. `heard` must be older than `look`. Raises what the
        stores raise, and Outside when this instance is a member of no epoch, after it has refuted or claimed what it
        can."""
        if self._in_doubt(look, heard) and not self._candidacy.pauses:
            # Perhaps a name leads elsewhere by now, and only the old connections still lead to the old place:
            #
            #   A and B are on the old primary      the name leads to the new one; B reconnects, and claims
            #   A would refute the claim forever, on its old connections
            await self._places.reconnect()
            self._epochs.reconnect()
            heard = await self.probe()
            look = await self.look()
        epoch = look.epoch
        run = None if epoch is None else self._places.run(epoch.run)
        if epoch is None or run is None:
            raise self._outside("no epoch has begun")
        self._database.refused = None
        heard = self._judged(epoch, look, heard)
        why = self._mismatch(epoch, look, run)
        if why is None and epoch.claim is not None and epoch.claimed_run == run:
            why = NEWS
        if why is not None:
            outside = self._outside(why)
            await claim_next(self._epochs, self._candidacy, look, heard, run)
            raise outside
        joined = await self._joined(epoch, look, heard)
        look = await self._unchallenged(epoch, look)
        look = await self._places.settle(self._epochs, look)
        if look.epoch is None or look.epoch.token != epoch.token:
            raise self._outside(ANOTHER)
        return Joined(look.epoch, look, self._enter(look.epoch, look, joined))

    def _in_doubt(self, look: Look, heard: Heard) -> bool:
        """Returns whether the stores disagree, or a claim says that they do."""
        if look.epoch is None or (run := self._places.run(look.epoch.run)) is None:
            return False
        fits = all(seen.epoch in (None, look.epoch.token) and seen.claim is None for seen in heard.values())
        claimed = look.epoch.claim is not None
        # In a cluster, a claim for a node that has died is no reason to doubt the others.
        claimed = claimed and (look.epoch.claimed_run == run or self._places.refutes(look.epoch))
        return not fits or self._mismatch(look.epoch, look, run) is not None or claimed

    def _judged(self, epoch: Epoch, look: Look, heard: Heard) -> Heard:
        """Returns those that may be ours. Raises Outside if none is, or if this database is an old primary."""
        ours: dict[Membership, Seen] = {}
        foreign: str | None = None
        for membership, seen in heard.items():
            fault = membership.judge(seen, look)
            if fault is not None:
                membership.refuse(fault)
                foreign = fault
                continue
            if seen.owner is not None and goes_on(seen.owner.history, look.history):
                raise self._superseded("it was told of a later timeline of Postgres")
            if is_over(seen, epoch.token) or (seen.epoch == epoch.token and is_behind(seen, look)):
                self._over = epoch.token
            ours[membership] = seen
        if foreign is not None and not ours:
            raise self._outside(foreign)
        return ours

    async def _joined(self, epoch: Epoch, look: Look, heard: Heard) -> Sequence[Membership]:
        """Returns those that belong to the epoch. Raises Outside or CacheUnavailable if none does."""
        joined: list[Membership] = []
        failed: CacheUnavailable | None = None
        for membership, seen in heard.items():
            try:
                why = await membership.join(epoch, look, seen, self._candidacy)
            except Superseded as error:
                raise self._superseded(str(error)) from None
            except CacheUnavailable as error:
                failed = error
            else:
                if why is None:
                    joined.append(membership)
                elif len(heard) == 1:
                    raise self._outside(why)
        if failed is not None and not joined:
            raise failed
        return joined

    def _mismatch(self, epoch: Epoch, look: Look, run: str) -> str | None:
        """Returns why this instance is not a member of `epoch`, or None if it is."""
        if epoch.run != run:
            return "it is another Redis, or another run of it, than the one that Postgres names"
        if epoch.history != look.history:
            return "Postgres is another one, or was promoted or restored"
        if epoch.token == self._over:
            return "it, or Postgres, went back to what it was before"
        return None

    async def _unchallenged(self, epoch: Epoch, look: Look) -> Look:
        """Refutes a claim to the next epoch that is for others than our Redises. Returns a poll of Postgres in which no
        such claim stands. Raises Outside."""
        if epoch.claim is None or not self._places.refutes(epoch):
            return look
        await self._epochs.refute(epoch)
        # Another member may have refuted the claim first, or the next epoch may have begun.
        look = await self.look()
        if look.epoch is None or look.epoch.token != epoch.token:
            raise self._outside(ANOTHER)
        if look.epoch.claim is not None and self._places.refutes(look.epoch):
            raise self._outside(NEWS)
        return look

    def _enter(self, epoch: Epoch, look: Look, joined: Sequence[Membership]) -> Sequence[Cache]:
        """Becomes a member of `epoch`. Returns the caches to trust."""
        if self.epoch is None or self.epoch.token != epoch.token:
            logger.info("Epoch %d: %s of Redis is believed.", epoch.n, self._places)
            if self.epoch is not None:
                # Others began it between two polls of this instance. Operations in flight belong to the one before.
                self._lose(ANOTHER)
            timeline = int(look.history.split("/")[1])
            self._database.believe(timeline, epoch.token)
            self._epochs.believe(timeline)
        self.epoch, self._position = epoch, look.position
        self._database.epoch = epoch.token
        for membership in joined:
            membership.enter(epoch.token)
        self._candidacy.end()
        return self._places.enter(epoch, joined)

    def told(self, caches: Sequence[Cache]) -> None:
        """Records that these caches were told of every change, and are trusted."""
        self._places.told(caches)

    def _lose(self, why: str) -> None:
        for cache in self.caches:
            if not cache.trust.lost:
                cache.trust.lose(why)

    def _outside(self, why: str) -> Outside:
        self._places.leave(why)
        self._database.epoch = None
        return Outside(f"Redis is not believed: {why}.")

    def _superseded(self, why: str) -> Outside:
        """Refuses all use of this database, which is an old primary. Returns the error to raise."""
        self._database.refused = "DATABASE_URL leads to an old primary: a later timeline of Postgres is believed."
        for cache in self.caches:
            cache.identity.ours = None
        return self._outside(f"{why}, and DATABASE_URL leads to an old primary")

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

What can go wrong: an instance without Postgres sees no claim there. Its hits are marked as unverified.
"""

import logging
import random
import secrets
import time
from datetime import timedelta

from app.caching import SETTLED, Cache, Owner, Record, Seen
from app.caching.errors import Outside
from app.caching.record import VOID
from app.caching.trust import UNCHECKED
from app.coherence.claim import Claim
from app.coherence.epochs import Epoch, Epochs, Look
from app.coherence.histories import goes_on, is_ours
from app.database import Database
from app.errors import StandbyMet

logger = logging.getLogger(__name__)

REFUTED, LONGEST = timedelta(seconds=1), timedelta(seconds=5)
"""The first and the longest pause after a refuted claim. It doubles each time: each claim costs the members work."""
DEAD = 3 * SETTLED
"""The age at which a claim that has become no epoch is a dead instance's, and may be replaced."""


class Succession:
    """One instance's knowledge of the epochs. Sets in the identity of `cache` its epoch, or why it is in none."""

    def __init__(self, epochs: Epochs, record: Record, cache: Cache, database: Database) -> None:
        """`database` is the one that serves requests. Each epoch makes its connections anew."""
        self._epochs, self._record, self._redis, self._database = epochs, record, cache.redis, database
        self._trust, self._breaker, self._identity = cache.trust, cache.breaker, cache.identity
        self.epoch: Epoch | None = None
        """The epoch that this instance was last a member of."""
        self._position = 0
        self._looked = False
        """Whether Postgres has ever answered."""
        self._over: str | None = None
        """The token of the epoch that ended because a store went back in time."""
        self._in_postgres, self._in_redis = Claim(), Claim()
        self._not_before, self._patience = 0.0, REFUTED
        self._identity.refused, self._identity.ours = UNCHECKED, None

    @property
    def claims(self) -> bool:
        """Whether this instance waits for a claim that nobody has refuted yet."""
        return self._in_postgres.token is not None or self._in_redis.token is not None

    async def probe(self) -> Seen:
        """Reads the record in Redis and leaves a beat. Raises CacheUnavailable when Redis does not answer."""
        token = None if self.epoch is None else self.epoch.token
        seen = await self._breaker.probe(self._redis, lambda: self._record.beat(token, self._position))
        if token is not None and (seen.went_back or seen.epoch == VOID + token):
            # At once, not after the query of Postgres that follows, which may take as long as trust lasts.
            self._over = token
            self._trust.lose("it went back to what it was before")
        return seen

    def holds(self, seen: Seen) -> bool:
        """Returns whether Redis gives no reason to leave the epoch. Without Postgres, nothing more can be known."""
        if self.epoch is None:
            if not self._looked:
                # Take the record's word for the epoch, but only to accept views: they are flushed when Postgres is
                # back. An instance that Postgres has answered, and that is no member, knows why it is not.
                self._identity.epoch, self._identity.refused = seen.epoch, None
            return False
        return seen.epoch == self.epoch.token != self._over and seen.claim is None

    async def look(self) -> Look:
        """Polls Postgres, and begins the first epoch if there is none. Raises DatabaseUnavailable."""
        look = await self._epochs.look()
        self._looked = True
        if look.standby:
            raise StandbyMet("Postgres is a standby, and not the primary.")
        if look.epoch is None and self._identity.run is not None:
            await self._epochs.first(secrets.token_hex(8), self._identity.run, look.history)
            look = await self._epochs.look()
        return look

    async def join(self, look: Look, seen: Seen) -> tuple[Epoch, Look]:
        """Returns the epoch that this instance is a member of, and the poll of Postgres that shows it. `seen` must be
        older than `look`. Raises what the stores raise, and Outside when this instance is a member of no epoch, after
        it has refuted or claimed what it can."""
        if self._in_doubt(look, seen) and time.monotonic() >= self._not_before:
            # Perhaps a name leads elsewhere by now, and only the old connections still lead to the old place:
            #
            #   A and B are on the old primary      the name leads to the new one; B reconnects, and claims
            #   A would refute the claim forever, on its old connections
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            self._epochs.reconnect()
            seen = await self.probe()
            look = await self.look()
        run, epoch = self._identity.run, look.epoch
        if epoch is None or run is None:
            raise self._outside("no epoch has begun")
        self._database.refused = None
        self._identity.ours = is_ours(seen.owner, look)
        if self._identity.ours is False:
            raise self._outside(
                "it belongs to another deployment: set FOURWAYS_PREFIX, or name another Redis in REDIS_URL"
            )
        if seen.owner is not None and goes_on(seen.owner.history, look.history):
            raise self._superseded("it was told of a later timeline of Postgres")
        behind = seen.owner is not None and look.position < seen.owner.position
        if seen.epoch == VOID + epoch.token or (seen.epoch == epoch.token and behind):
            self._over = epoch.token
        owner = Owner(look.deployment, look.history, look.position)
        why = self._mismatch(epoch, look, run)
        while why is None and seen.epoch is None:
            await self._record.tell(epoch.token, owner, None)
            # Another instance may have written the record in between, or Redis may have been emptied again.
            seen = await self.probe()
        if why is None and seen.epoch != epoch.token:
            why = "it was told of another epoch"
        if why is None and await self._unchallenged(epoch, look, seen, run):
            self._enter(epoch, look)
            return epoch, look
        outside = self._outside(why or "an instance has found it, or Postgres, to be another one than before")
        await self._claim(epoch, look, seen, owner, run)
        raise outside

    def _in_doubt(self, look: Look, seen: Seen) -> bool:
        """Returns whether the stores disagree, or a claim says that they do."""
        if look.epoch is None or self._identity.run is None:
            return False
        fits = self._mismatch(look.epoch, look, self._identity.run) is None and seen.epoch in (None, look.epoch.token)
        return not fits or look.epoch.claim is not None or seen.claim is not None

    def _mismatch(self, epoch: Epoch, look: Look, run: str) -> str | None:
        """Returns why this instance is not a member of `epoch`, or None if it is."""
        if epoch.run != run:
            return "it is another Redis, or another run of it, than the one that Postgres names"
        if epoch.history != look.history:
            return "Postgres is another one, or was promoted or restored"
        if epoch.token == self._over:
            return "it, or Postgres, went back to what it was before"
        return None

    def _enter(self, epoch: Epoch, look: Look) -> None:
        if self.epoch is None or self.epoch.token != epoch.token:
            logger.info("Epoch %d: run %s of Redis is believed.", epoch.n, epoch.run)
            if self.epoch is not None and not self._trust.lost:
                # Others began it between two polls of this instance. Operations in flight belong to the one before.
                self._trust.lose("another epoch has begun")
            timeline = int(look.history.split("/")[1])
            self._database.believe(timeline, epoch.token)
            self._epochs.believe(timeline)
        self.epoch, self._position, self._patience = epoch, look.position, REFUTED
        self._identity.epoch, self._identity.refused, self._identity.ours = epoch.token, None, True
        self._database.epoch = epoch.token
        self._in_postgres.stands(None)
        self._in_redis.stands(None)

    def _outside(self, why: str) -> Outside:
        self._trust.lose(why)
        self._identity.refused = why
        self._database.epoch = None
        return Outside(f"Redis is not believed: {why}.")

    def _superseded(self, why: str) -> Outside:
        """Refuses all use of this database, which is an old primary. Returns the error to raise."""
        self._database.refused = "DATABASE_URL leads to an old primary: a later timeline of Postgres is believed."
        self._identity.ours = None
        return self._outside(f"{why}, and DATABASE_URL leads to an old primary")

    async def _unchallenged(self, epoch: Epoch, look: Look, seen: Seen, run: str) -> bool:
        """Refutes claims to the next epoch, unless they report news. Returns whether none stands. Raises Outside."""
        if seen.claim is not None:
            if seen.claims_for == look.history:
                return False
            if goes_on(seen.claims_for, look.history):
                raise self._superseded("a later timeline of Postgres claims it")
            await self._record.refute(epoch.token, seen.claim)
        if epoch.claim is not None:
            if epoch.claimed_run == run:
                return False
            await self._epochs.refute(epoch)
        if seen.claim is None and epoch.claim is None:
            return True
        # Another member may have refuted the claim first, or the next epoch may have begun.
        again, now = await self.probe(), (await self.look()).epoch
        if now is None or not now.token == again.epoch == epoch.token:
            raise self._outside("another epoch has begun")
        return again.claim is None and now.claim is None

    async def _claim(self, epoch: Epoch, look: Look, seen: Seen, owner: Owner, run: str) -> None:
        """Claims the next epoch in each store where others may have trust, and begins it when the claims have stood
        long enough."""
        if self._in_postgres.vanished(epoch.claim) or self._in_redis.vanished(seen.claim):
            self._not_before = time.monotonic() + self._patience.total_seconds() * (0.5 + random.random())
            self._patience = min(2 * self._patience, LONGEST)
        self._in_postgres.stands(epoch.claim)
        self._in_redis.stands(seen.claim)
        if time.monotonic() < self._not_before:
            return
        # If only the record in Redis is wrong, the epoch has already begun in Postgres.
        begun = self._mismatch(epoch, look, run) is None and epoch.claimed_run != run
        waits = not begun and not await self._claimed_in_postgres(epoch, run)
        if seen.epoch is not None:
            waits = not await self._claimed_in_redis(seen, owner) or waits
        if waits:
            return
        token = epoch.token
        if not begun:
            token = secrets.token_hex(8)
            if not await self._epochs.begin(epoch, epoch.claim or "", token, run, look.history):
                return
        await self._record.tell(token, owner, self._in_redis.token)

    async def _claimed_in_postgres(self, epoch: Epoch, run: str) -> bool:
        """Claims for this instance's Redis. Returns whether such a claim has stood in Postgres for long enough."""
        if epoch.claim is not None and epoch.claimed_run == run:
            return self._in_postgres.stood(SETTLED)
        if epoch.claim is None or self._in_postgres.stood(DEAD):
            claim = secrets.token_hex(8)
            if await self._epochs.claim(epoch, claim, run):
                self._in_postgres.stands(claim)
        return False

    async def _claimed_in_redis(self, seen: Seen, owner: Owner) -> bool:
        """Claims for this instance's database. Returns whether such a claim has stood in Redis for long enough."""
        if seen.claim is not None and seen.claims_for == owner.history:
            return self._in_redis.stood(SETTLED)
        if seen.claim is None or self._in_redis.stood(DEAD):
            self._in_redis.stands(await self._record.claim(secrets.token_hex(8), owner, seen.claim))
        return False

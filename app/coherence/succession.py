"""Which Redis is believed with which history of Postgres: one epoch after the other, and never two at a time.

    Postgres has the epochs    the newest names the run of Redis that is believed, and the history of Postgres
    Redis has a record         of which epoch it was told

An instance is a member when both say the same, and it is what the instance finds: its connection leads to that run, and
its Postgres has that history. Whoever finds something else claims the next epoch, on both sides, and waits:

    A finds R2, where the epoch names R1              B is believed on R1
    A claims it in Postgres                           B polls, finds the claim, and takes it away: A stays out
                                                      … or B is gone, or has lost R1: nobody takes it away
    A waits for SETTLED: whoever polled before the claim believes no more, and whoever polls after it sees it
    A begins the next epoch with R2                   B, if it comes back, finds another epoch than its own

So one wait does both: it gives whoever is believed the time to object, and lets the trust of all others end. The claim
in Postgres asks those who share the database, and the one in Redis those who share that: another database, or an old
primary, that leads to the same Redis.

A claim is not refuted when it tells news: that this Redis, or this Postgres, is not what it was (a restored snapshot, a
promoted standby). A member that meets one leaves its epoch, and claims as well. Nobody is banned: a run, or a history,
may come back and be the next one.

What can go wrong: an instance without Postgres knows of no claim there. Its hits say that they are not verified.
"""

import logging
import random
import secrets
import time
from datetime import timedelta

from redis.asyncio import Redis

from app.caching import SETTLED, Breaker, Owner, Record, Seen
from app.caching.errors import Outside
from app.caching.record import VOID
from app.coherence.claim import Claim
from app.coherence.epochs import Epoch, Epochs, Look, goes_on
from app.database import Database
from app.errors import StandbyMet

logger = logging.getLogger(__name__)

REFUTED, LONGEST = timedelta(seconds=1), timedelta(seconds=5)
"""After a refutation nobody claims for so long, twice as long each time: those who are believed have to look at it."""
DEAD = 3 * SETTLED
"""Whose claim stands for so long, and has not become an epoch, has died."""


class Succession:
    """What one instance knows of the epochs. It tells `breaker` to which one it belongs, and why to none."""

    def __init__(self, epochs: Epochs, record: Record, redis: Redis, breaker: Breaker, database: Database) -> None:
        """`database` is what requests use: its connections are made anew in each epoch."""
        self._epochs, self._record, self._redis, self._breaker = epochs, record, redis, breaker
        self._database = database
        self.epoch: Epoch | None = None
        """The one that this instance was a member of last."""
        self._position = 0
        self._looked = False
        """Whether Postgres was met."""
        self._over: str | None = None
        """The epoch that ended because a store went back under it."""
        self._in_postgres, self._in_redis = Claim(), Claim()
        self._not_before, self._patience = 0.0, REFUTED
        breaker.refused, breaker.ours = "nobody has looked yet", None

    @property
    def claims(self) -> bool:
        """Whether a claim is waited for, which nobody has refuted yet."""
        return self._in_postgres.token is not None or self._in_redis.token is not None

    async def probe(self) -> Seen:
        """Looks into Redis. Raises CacheUnavailable when it does not answer."""
        token = None if self.epoch is None else self.epoch.token
        seen = await self._breaker.probe(self._redis, lambda: self._record.beat(token, self._position))
        if token is not None and (seen.went_back or seen.epoch == VOID + token):
            # At once, and not after the look into Postgres that follows: that one may take as long as trust lasts.
            self._over = token
            self._breaker.open("it went back to what it was before")
        return seen

    def holds(self, seen: Seen) -> bool:
        """Whether Redis alone gives no reason to leave the epoch: all that can be known without Postgres."""
        if self.epoch is None:
            if not self._looked:
                # It is taken for what its record says, as far as to take views on: they are carried when Postgres is
                # back. Whoever has met Postgres, and is no member, knows why.
                self._breaker.epoch, self._breaker.refused = seen.epoch, None
            return False
        return seen.epoch == self.epoch.token != self._over and seen.claim is None

    async def look(self) -> Look:
        """Looks into Postgres. Raises DatabaseUnavailable."""
        look = await self._epochs.look()
        self._looked = True
        if look.standby:
            raise StandbyMet("Postgres is a standby, and not the primary.")
        if look.epoch is None and self._breaker.run is not None:
            await self._epochs.first(secrets.token_hex(8), self._breaker.run, look.history)
            look = await self._epochs.look()
        return look

    async def join(self, look: Look, seen: Seen) -> tuple[Epoch, Look]:
        """The epoch of which this instance is a member, by a look into Redis and a later one into Postgres, and the
        look by which it is. Raises Outside when it is a member of none, after doing what can be done about it, and what
        the stores raise."""
        if self._in_doubt(look, seen) and time.monotonic() >= self._not_before:
            # Perhaps a name leads elsewhere by now, and only our old connections do not:
            #
            #   A and B are on the old primary      the name leads to the new one, B reconnects, and claims
            #   A would refute it for ever, on its old connections
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            self._epochs.reconnect()
            seen = await self.probe()
            look = await self.look()
        run, epoch = self._breaker.run, look.epoch
        if epoch is None or run is None:
            raise self._outside("no epoch has begun")
        self._database.refused = None
        self._breaker.ours = seen.owner is None or seen.owner.deployment == look.deployment
        if not self._breaker.ours:
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
            # Somebody else may have told it in between, or have emptied it once more.
            seen = await self.probe()
        if why is None and seen.epoch != epoch.token:
            why = "it was told of another epoch"
        if why is None and await self._unchallenged(epoch, look, seen, run):
            self._enter(epoch, look)
            return epoch, look
        outside = self._outside(why or "somebody has found it, or Postgres, to be another one than before")
        await self._claim(epoch, look, seen, owner, run)
        raise outside

    def _in_doubt(self, look: Look, seen: Seen) -> bool:
        """Whether something does not fit together, or somebody says so."""
        if look.epoch is None or self._breaker.run is None:
            return False
        fits = self._mismatch(look.epoch, look, self._breaker.run) is None and seen.epoch in (None, look.epoch.token)
        return not fits or look.epoch.claim is not None or seen.claim is not None

    def _mismatch(self, epoch: Epoch, look: Look, run: str) -> str | None:
        """Why this instance is not a member of `epoch`."""
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
            if self.epoch is not None and not self._breaker.is_open:
                # Others have begun it, faster than this instance looked. What is under way is of the one before.
                self._breaker.open("another epoch has begun")
            timeline = int(look.history.split("/")[1])
            self._database.believe(timeline, epoch.token)
            self._epochs.believe(timeline)
        self.epoch, self._position, self._patience = epoch, look.position, REFUTED
        self._breaker.epoch, self._breaker.refused = epoch.token, None
        self._database.epoch = epoch.token
        self._in_postgres.stands(None)
        self._in_redis.stands(None)

    def _outside(self, why: str) -> Outside:
        self._breaker.open(why)
        self._breaker.refused = why
        self._database.epoch = None
        return Outside(f"Redis is not believed: {why}.")

    def _superseded(self, why: str) -> Outside:
        """This database is an old primary: nothing is read there, and nothing is carried to it."""
        self._database.refused = "DATABASE_URL leads to an old primary: a later timeline of Postgres is believed."
        self._breaker.ours = None
        return self._outside(f"{why}, and DATABASE_URL leads to an old primary")

    async def _unchallenged(self, epoch: Epoch, look: Look, seen: Seen, run: str) -> bool:
        """Whether nobody claims the next epoch, or the claims were refuted. Raises Outside."""
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
        # Another member may have refuted it first, or somebody has begun the next epoch before.
        again, now = await self.probe(), (await self.look()).epoch
        if now is None or not now.token == again.epoch == epoch.token:
            raise self._outside("another epoch has begun")
        return again.claim is None and now.claim is None

    async def _claim(self, epoch: Epoch, look: Look, seen: Seen, owner: Owner, run: str) -> None:
        """Claims the next epoch where somebody may be believed, and begins it when nobody has refuted that for long
        enough."""
        if self._in_postgres.vanished(epoch.claim) or self._in_redis.vanished(seen.claim):
            self._not_before = time.monotonic() + self._patience.total_seconds() * (0.5 + random.random())
            self._patience = min(2 * self._patience, LONGEST)
        self._in_postgres.stands(epoch.claim)
        self._in_redis.stands(seen.claim)
        if time.monotonic() < self._not_before:
            return
        # When all that is wrong is what Redis was told, its epoch stands in Postgres already.
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
        """Whether a claim for our Redis has stood there for long enough."""
        if epoch.claim is not None and epoch.claimed_run == run:
            return self._in_postgres.stood(SETTLED)
        if epoch.claim is None or self._in_postgres.stood(DEAD):
            claim = secrets.token_hex(8)
            if await self._epochs.claim(epoch, claim, run):
                self._in_postgres.stands(claim)
        return False

    async def _claimed_in_redis(self, seen: Seen, owner: Owner) -> bool:
        """Whether a claim for our database has stood there for long enough."""
        if seen.claim is not None and seen.claims_for == owner.history:
            return self._in_redis.stood(SETTLED)
        if seen.claim is None or self._in_redis.stood(DEAD):
            self._in_redis.stands(await self._record.claim(secrets.token_hex(8), owner, seen.claim))
        return False

"""What one Redis was told, and by whom: whether it belongs to the epoch that Postgres names, as far as Redis knows.

    probe     reads the record in Redis, and leaves a beat
    claimed   claims the record for this instance's database, and waits for those who may object

What can go wrong: another deployment owns this Redis, or an instance on an old primary does. Then this process neither
reads nor writes there, and says why.
"""

import secrets

from app.caching import SETTLED, Cache, Owner, Record, Seen
from app.caching.record import VOID
from app.caching.trust import UNCHECKED
from app.coherence.candidacy import Candidacy
from app.coherence.claim import DEAD, Claim
from app.coherence.epochs import Epoch, Look
from app.coherence.histories import goes_on, is_ours

NEWS = "an instance has found it, or Postgres, to be another one than before"
ANOTHER = "another epoch has begun"


class Superseded(Exception):
    """A Redis was told of a later timeline of Postgres."""


class Membership:
    """One Redis and its record. Sets in the identity of `cache` whose it is, and why nothing is written there."""

    def __init__(self, cache: Cache, record: Record) -> None:
        self.cache, self.record = cache, record
        self.claim = Claim()
        """The claim in the record that this instance waits for."""
        cache.identity.refused, cache.identity.ours = UNCHECKED, None

    async def probe(self, token: str | None, position: int) -> Seen:
        """Reads the record, and leaves a beat if it is of the epoch `token`. Raises CacheUnavailable when Redis does
        not answer."""
        cache, record = self.cache, self.record
        seen = await cache.breaker.probe(cache.redis, lambda: record.beat(token, position))
        if token is not None and is_over(seen, token):
            # At once, not after the query of Postgres that follows, which may take as long as trust lasts.
            cache.trust.lose("it went back to what it was before")
        return seen

    def judge(self, seen: Seen, look: Look) -> str | None:
        """Decides whose the pending entries are. Returns why this Redis is not ours, None if it may be."""
        self.cache.identity.ours = is_ours(seen.owner, look)
        if self.cache.identity.ours is not False:
            return None
        return "it belongs to another deployment: set FOURWAYS_PREFIX, or name another Redis in REDIS_URL"

    def enter(self, token: str) -> None:
        """Records that this Redis belongs to the epoch `token`."""
        identity = self.cache.identity
        identity.epoch, identity.refused, identity.ours = token, None, True
        self.claim.stands(None)

    def refuse(self, why: str) -> None:
        """Stops all use of this Redis, except for what must be told there."""
        self.cache.trust.lose(why)
        self.cache.identity.refused = why

    async def join(self, epoch: Epoch, look: Look, seen: Seen, candidacy: Candidacy) -> str | None:
        """Tells a Redis without a record of the epoch, and refutes a claim there unless it reports news. Otherwise, it
        claims the record. Returns why this Redis does not belong to the epoch, None if it does. Raises Superseded."""
        owner = owner_of(look)
        while seen.epoch is None:
            await self.record.tell(epoch.token, owner, None)
            # Another instance may have written the record in between, or Redis may have been emptied again.
            seen = await self.probe(epoch.token, look.position)
        if seen.epoch == epoch.token and seen.claim is not None and seen.claims_for != look.history:
            if goes_on(seen.claims_for, look.history):
                raise Superseded("a later timeline of Postgres claims it")
            await self.record.refute(epoch.token, seen.claim)
            # Another member may have refuted the claim first, or the next epoch may have begun.
            seen = await self.probe(epoch.token, look.position)
            if seen.epoch != epoch.token:
                self.refuse(ANOTHER)
                return ANOTHER
        if seen.epoch == epoch.token and seen.claim is None:
            return None
        why = "it was told of another epoch" if seen.epoch != epoch.token else NEWS
        self.refuse(why)
        candidacy.sees(self.claim, seen.claim)
        if not candidacy.pauses and await self.claimed(seen, owner):
            await self.record.tell(epoch.token, owner, self.claim.token)
        return why

    async def claimed(self, seen: Seen, owner: Owner) -> bool:
        """Claims the record for this instance's database. Returns whether such a claim has stood for long enough."""
        if seen.claim is not None and seen.claims_for == owner.history:
            return self.claim.stood(SETTLED)
        if seen.claim is None or self.claim.stood(DEAD):
            self.claim.stands(await self.record.claim(secrets.token_hex(8), owner, seen.claim))
        return False


def is_over(seen: Seen, token: str) -> bool:
    """Whether the epoch `token` is over, because this Redis went back to what it was before."""
    return seen.went_back or seen.epoch == VOID + token


def is_behind(seen: Seen, look: Look) -> bool:
    """Whether Redis was told of a later position of Postgres than the polled one: Postgres went back."""
    return seen.owner is not None and look.position < seen.owner.position


def owner_of(look: Look) -> Owner:
    """Returns the owner to tell Redis: the polled database."""
    return Owner(look.deployment, look.history, look.position)

"""This instance's claims to change the newest epoch in Postgres: one at a time, and each waits for those who object.

    claim      the claim stands in Postgres, where every instance finds it at its next poll
    refuted    a member has removed it: this instance pauses, each time longer, as each claim costs the members work
    stood      nobody has removed it for `SETTLED`: whoever polled before it has lost trust, and others have seen it

What can go wrong: an instance dies after its claim. The claim is replaced when it is `DEAD`.
"""

import random
import secrets
import time
from datetime import timedelta

from app.caching import SETTLED
from app.coherence.claim import DEAD, Claim
from app.coherence.epochs import Epoch, Epochs

REFUTED, LONGEST = timedelta(seconds=1), timedelta(seconds=5)
"""The first and the longest pause after a refuted claim. It doubles each time."""


class Candidacy:
    """The claims of one instance in Postgres."""

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self.claim = Claim()
        """The claim in Postgres that this instance waits for."""
        self._not_before, self._patience = 0.0, REFUTED

    @property
    def pauses(self) -> bool:
        """Whether this instance makes no claim now, because one was refuted."""
        return time.monotonic() < self._not_before

    @property
    def stood(self) -> bool:
        """Whether the claim that stands has stood for long enough."""
        return self.claim.stood(SETTLED)

    def sees(self, claim: Claim, found: str | None) -> None:
        """Records which claim stands where `claim` was made. If that one was removed, a pause begins."""
        if claim.vanished(found):
            self._not_before = time.monotonic() + self._patience.total_seconds() * (0.5 + random.random())
            self._patience = min(2 * self._patience, LONGEST)
        claim.stands(found)

    def end(self) -> None:
        """Forgets all claims: this instance is a member of the newest epoch."""
        self._patience = REFUTED
        self.claim.stands(None)

    async def claimed(self, epoch: Epoch, run: str) -> bool:
        """Claims that `run` is the Redis to trust next. Returns whether such a claim has stood for long enough."""
        if epoch.claim is not None and epoch.claimed_run == run:
            return self.stood
        if epoch.claim is None or self.claim.stood(DEAD):
            claim = secrets.token_hex(8)
            if await self._epochs.claim(epoch, claim, run):
                self.claim.stands(claim)
        return False

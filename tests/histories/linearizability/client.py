"""A client that reads and changes stock at random."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence

from tests.histories.linearizability.operation import Kind
from tests.histories.linearizability.recorder import Recorder
from tests.histories.linearizability.target import Target

BEAT = 0.07
"""Seconds. All clients call at the same beats, so that their calls overlap, and are few enough for the checker."""
PAUSE = 2
"""Number of beats for which a client pauses after a call without an answer."""
KINDS = {Kind.READ: 50, Kind.ADJUST: 32, Kind.PUT: 13, Kind.DELETE: 5}
"""How often each is called, in percent."""


class Client:
    """One of several concurrent clients. Its calls depend only on `randomness`; their times depend on the target."""

    def __init__(
        self,
        name: str,
        target: Target,
        recorder: Recorder,
        randomness: random.Random,
        *,
        kinds: Mapping[Kind, int] = KINDS,
    ) -> None:
        self._name, self._target, self._recorder, self._randomness = name, target, recorder, randomness
        self._kinds = kinds

    async def call(self, skus: Sequence[str], *, beat: float = BEAT) -> None:
        """Waits for the next beat, and makes one or more calls, one after the other, until one is not answered."""
        await asyncio.sleep(beat - time.monotonic() % beat)
        for _ in range(self._randomness.choice((1, 1, 2, 3))):
            sku = self._randomness.choice(skus)
            (kind,) = self._randomness.choices(list(self._kinds), list(self._kinds.values()))
            if await self._recorder.record(self._target, self._name, sku, kind, self._argument(kind)) is None:
                # As `Retry-After` asks. Otherwise a Postgres that recovers slowly would fill the history with refusals.
                await asyncio.sleep(PAUSE * beat)
                return

    def _argument(self, kind: Kind) -> int:
        match kind:
            case Kind.PUT:
                return self._randomness.randint(0, 60)
            case Kind.ADJUST:
                return self._randomness.choice((-30, -5, -3, -2, -1, -1, 1, 2, 3, 5))
        return 0

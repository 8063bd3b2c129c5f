"""How long a claim has stood, as seen by the instance that waits for it."""

import time
from datetime import timedelta

from app.caching import SETTLED

DEAD = 3 * SETTLED
"""The age at which a claim that has changed nothing is a dead instance's, and may be replaced."""


class Claim:
    """The claim that this instance waits for in one store, and when it first saw it."""

    def __init__(self) -> None:
        self.token: str | None = None
        self._since = 0.0

    def stands(self, token: str | None) -> None:
        """Records that the claim `token` stands now."""
        if token != self.token:
            self.token, self._since = token, time.monotonic()

    def vanished(self, found: str | None) -> bool:
        """Whether the claim is gone, given that the latest query `found` this one."""
        return self.token is not None and found != self.token

    def stood(self, duration: timedelta) -> bool:
        """Whether the claim has stood for `duration`."""
        return self.token is not None and time.monotonic() - self._since >= duration.total_seconds()

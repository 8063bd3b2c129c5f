"""How long a claim has stood, as the one sees it who waits for it."""

import time
from datetime import timedelta


class Claim:
    """A claim that is waited for on one side, and since when it stands."""

    def __init__(self) -> None:
        self.token: str | None = None
        self._since = 0.0

    def stands(self, token: str | None) -> None:
        """This one stands now."""
        if token != self.token:
            self.token, self._since = token, time.monotonic()

    def vanished(self, found: str | None) -> bool:
        """Whether it was taken away, by the look that has `found` this."""
        return self.token is not None and found != self.token

    def stood(self, duration: timedelta) -> bool:
        """Whether it has stood for so long."""
        return self.token is not None and time.monotonic() - self._since >= duration.total_seconds()

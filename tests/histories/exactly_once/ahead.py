"""The application with a wrong copy of Redis' clock: `AHEAD` hours ahead, as if that clock had stepped back since.

`AHEAD=2 uvicorn tests.histories.exactly_once.ahead:app`.
"""

import os

from app.caching import RedisClock

AHEAD = float(os.environ["AHEAD"]) * 3_600_000
told = RedisClock.set
RedisClock.set = lambda clock, now: told(clock, now + AHEAD)  # type: ignore[method-assign, assignment]

from app.main import app  # noqa: E402  # Imported last, so that it uses the patched clock.

__all__ = ["app"]

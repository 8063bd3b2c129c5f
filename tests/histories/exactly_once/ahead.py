"""The application whose copy of Redis' clock is wrong: `AHEAD` hours ahead, as when that clock stepped back since.

`AHEAD=2 uvicorn tests.histories.exactly_once.ahead:app`.
"""

import os

from app.caching import RedisClock

AHEAD = float(os.environ["AHEAD"]) * 3_600_000
told = RedisClock.set
RedisClock.set = lambda clock, now: told(clock, now + AHEAD)  # type: ignore[method-assign, assignment]

from app.main import app  # noqa: E402  # It shall find the above.

__all__ = ["app"]

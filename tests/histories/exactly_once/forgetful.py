"""The application without a memory: it keeps the numbers of what it takes on, and nothing to take it on again from.

`uvicorn tests.histories.exactly_once.forgetful:app`.
"""

from datetime import timedelta

from app.caching.write_behind import receipts

receipts.KEPT = 0
# So long it waits for whoever may have a lost entry in hand: here that takes two seconds at most.
receipts.IN_HAND = timedelta(seconds=3)

from app.main import app  # noqa: E402  # It shall find the above.

__all__ = ["app"]

"""The application without receipts: it keeps the amounts of what it accepts, but nothing to accept it again from.

`uvicorn tests.histories.exactly_once.forgetful:app`.
"""

from datetime import timedelta

from app.caching.write_behind import receipts, recovery

receipts.KEPT = 0
# How long it waits for a flusher that may hold a lost entry: here that takes two seconds at most.
recovery.IN_HAND = timedelta(seconds=3)

from app.main import app  # noqa: E402  # Imported last, so that it uses the patched constants.

__all__ = ["app"]

"""The application in a hurry: what a dead process had in hand is taken over after one second and not after ten.

`uvicorn tests.histories.exactly_once.hurried:app`. More is taken over than needs be, also from the living: the ledger
has to bear that, too.
"""

from datetime import timedelta

from app.caching.write_behind import gathering

gathering.ABANDONED = timedelta(seconds=1)

from app.main import app  # noqa: E402  # It shall find the above.

__all__ = ["app"]

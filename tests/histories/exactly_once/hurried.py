"""The application in a hurry: entries that a dead process left pending are taken over after one second, not ten.

`uvicorn tests.histories.exactly_once.hurried:app`. Some entries are taken over without need, even from live processes:
the ledger has to cope with that, too.
"""

from datetime import timedelta

from app.caching.write_behind import gathering

gathering.ABANDONED = timedelta(seconds=1)

from app.main import app  # noqa: E402  # Imported last, so that it uses the patched constant.

__all__ = ["app"]

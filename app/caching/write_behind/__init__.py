"""Write-behind: accept now, write later. In the order in which an addition meets them:

    write_behind.py   the strategy: what a caller uses
    group_commit.py   the additions of a moment come together
    acceptance.py     accept: one script in Redis, all or none of a batch
    pending.py        the pending record: an entry of the stream
    gathering.py      a flusher reads what is pending, and claims what a dead one has left
    flusher.py        flush: one transaction in the database, with the ledger (`target.py`)
    forgetting.py     forget: the entry leaves the stream
    set_aside.py      what the database has not done is tried again by itself
    dead_letters.py   what the database refuses is kept for somebody to decide

Beside this way: `receipts.py` accepts again what Redis has lost, `totals.py` answers reads, `backlog.py` says what
waits, and `shard.py` names all that is in Redis.
"""

from .acceptance import Cap
from .backlog import Backlog
from .batch import Batch
from .batch_id import made_at
from .flusher import Flusher
from .pending import Pending
from .target import Standing, Target
from .totals import Total
from .write_behind import WriteBehind

__all__ = ["Backlog", "Batch", "Cap", "Flusher", "Pending", "Standing", "Target", "Total", "WriteBehind", "made_at"]

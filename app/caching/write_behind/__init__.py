"""Write-behind: accept now, write later. The modules in the order in which an addition passes through them:

    write_behind.py   the strategy: what a caller uses
    group_commit.py   combines concurrent additions into one call
    acceptance.py     accept: one Redis script accepts a whole batch or nothing
    pending.py        the pending record: an entry of the stream
    gathering.py      a flusher reads pending entries, and claims those of dead flushers
    flusher.py        a flusher: one task for each place
    flushing.py       flush: one database transaction, with the ledger (`target.py`)
    forgetting.py     forget: the entry leaves the stream
    set_aside.py      an entry that the database has not written is retried on its own
    dead_letters.py   what the database refuses is kept for a person to decide

Beside this path, `recovery.py` accepts again what Redis has lost, `totals.py` answers reads, `backlog.py` reports what
is pending, `shard.py` names everything in Redis, and `place.py` says where it is: in one Redis, or in a cluster.
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

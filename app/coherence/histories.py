"""Which history of a database goes on where another one ended, and so whose the pending entries in a Redis are.

A history is written as system/timeline/database/tables (`epochs.py`). One that was read from Redis may be anything.
"""

import re

from app.caching import Owner
from app.coherence.epochs import Look

HISTORY = re.compile(r"(\d+)/(\d+)/.*")


def goes_on(later: str, history: str) -> bool:
    """Whether the history `later` is of the same Postgres system as `history`, at a later timeline."""
    one, other = HISTORY.fullmatch(later), HISTORY.fullmatch(history)
    return one is not None and other is not None and one[1] == other[1] and int(one[2]) > int(other[2])


def is_of(told: str, look: str) -> bool:
    """Whether Redis was last told of this database: of the history `look`, or of one that it goes on from."""
    return told == look or goes_on(look, told)


def is_ours(owner: Owner | None, look: Look) -> bool | None:
    """Returns whether the pending entries in a Redis with this `owner` are to be flushed into the polled database. None
    if that is unknown, because the database may be a copy of the one that the entries are for:

    pg_dump and pg_restore copy A's database          B is started on the copy, with A's Redis and the same deployment
    A accepts views                                   B would flush them into the copy, and A would never count them

    A refutes B's claim to the next epoch. If there is no A, B begins it, and Redis is told of B's history.
    """
    if owner is None:
        return True
    if owner.deployment != look.deployment:
        return False
    return is_of(owner.history, look.history) or None

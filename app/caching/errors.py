"""What can go wrong in a cache.

CacheError
├── CacheUnavailable    Redis did not answer, or answered with an error.
│   └── Outside         This process does not know this Redis to be the one that is believed.
├── NotInvalidated      A write is committed, and Redis could not be told: it is told again.
├── LoadTimeout         Somebody else loads this key, and takes longer than a reader waits.
├── Overloaded          So many reads ask the database, past the cache, that no more may.
├── TargetUnavailable   What a `flush` or a `load` raises when the database is away.
│   └── NotDone         It is there, and has not done it: perhaps of less, it will.
├── Refused             What a `flush` raises when the database refuses something of what it was given.
├── Unreadable          What a `load` answers in place of one row that it cannot read.
├── BacklogFull         So many writes wait for the database that no more are accepted.
├── KeysFull            So many idempotency keys are remembered that no more can be.
├── KeyWorn             One idempotency key was used for so much that it can be used for no more.
├── KeyUnreadable       What is kept of one idempotency key cannot be read.
├── Behind              So many writes wait that a total which is not cached cannot be built.
└── TotalOverflow       A total would be larger than can be counted exactly.
"""

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

# redis-py raises its own tree, yet a refused or broken socket can surface as OSError and a deadline as TimeoutError,
# and a socket that the other end has closed a moment ago as uvloop's RuntimeError.
REDIS_DOWN = (RedisError, OSError, TimeoutError, RuntimeError)


class AnotherRun(RedisConnectionError):
    """A connection leads to another run of Redis than before: what was about to be asked was meant for that one."""


class CacheError(Exception):
    """Something is wrong with the cache, and not with what was asked."""


class CacheUnavailable(CacheError):
    """Redis did not answer, or answered with an error."""


class Outside(CacheUnavailable):
    """This process is a member of no epoch (`record.py`): it does not know this Redis to be the one."""


class NotInvalidated(CacheError):
    """A write is committed, and Redis could not be told of it. It is told again until it was; meanwhile others may read
    the old value. Raised where no relay carries the change. `result` is what the write has returned."""

    result: object = None


class LoadTimeout(CacheError):
    """Somebody else loads this key, and takes longer than a reader waits."""


class Overloaded(CacheError):
    """So many reads ask the database, past the cache, that no more may."""


class TargetUnavailable(CacheError):
    """What a `flush` or a `load` raises when the database is away, and nothing is wrong with what it was given."""


class NotDone(TargetUnavailable):
    """What a `flush` or a `load` raises when the database has not done it in time, or a `flush`, when it has answered
    with an error that nobody knows: perhaps one of the things that it was given is to blame, and perhaps none."""


class Refused(CacheError):
    """What a `flush` raises when the database refuses something of what it was given, and will do so again."""


class Unreadable(CacheError):
    """What a `load` of many keys answers in place of one row that it cannot read. It is raised for that key alone."""


class BacklogFull(CacheError):
    """So many writes wait for the database that no more are accepted."""


class KeysFull(CacheError):
    """So many idempotency keys are remembered that no more can be."""


class KeyWorn(CacheError):
    """One idempotency key was used for so much that it can be used for no more."""

    def __init__(self, key: str, most: int) -> None:
        super().__init__(
            f"The idempotency key {key} was used {most} times for keys that it was not used for before, which is the "
            "most: use another one."
        )


class KeyUnreadable(CacheError):
    """What is kept of one idempotency key cannot be read, so nobody can tell what it was used for."""

    def __init__(self, key: str, record: str) -> None:
        super().__init__(
            f"What was counted under the idempotency key {key} cannot be told: what Redis has as {record[:400]} is "
            "no such record."
        )


class Behind(CacheError):
    """So many writes wait that a total which is not cached cannot be built."""


class TotalOverflow(CacheError):
    """A total would be larger than can be counted exactly."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key[:100]} would have a larger total than can be counted exactly.")
        self.key = key

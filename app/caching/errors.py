"""What can go wrong in a cache.

CacheError
├── CacheUnavailable    Redis did not answer, or answered with an error.
│   ├── NotAsked        Nothing was sent: Redis may not be asked now.
│   └── Outside         This process does not know whether this Redis is the one to believe.
├── NotInvalidated      A write is committed, but its invalidation failed. It is retried.
├── LoadTimeout         A load of this key took longer than a reader waits.
├── Overloaded          Too many reads query the database past the cache: no more may.
├── TargetUnavailable   Raised by a `flush` or a `load` if the database is down.
│   └── NotDone         The database is up but has not done the work. A smaller part of it may succeed.
├── Refused             Raised by a `flush` if the database refuses some of the input.
├── Unreadable          Returned by a `load` in place of a row that it cannot read.
├── BacklogFull         Too many writes are pending: no more are accepted.
├── KeysFull            Too many idempotency keys are remembered: no new ones are accepted.
├── KeyWorn             An idempotency key was used too often: it accepts nothing new.
├── KeyUnreadable       The record of an idempotency key cannot be read.
├── Behind              Too many writes are pending to build a total that is not cached.
└── TotalOverflow       A total would be larger than can be counted exactly.
"""

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

# redis-py has its own exceptions, but a refused or broken socket can surface as OSError, a deadline as TimeoutError,
# and a socket that the other end has just closed as uvloop's RuntimeError.
REDIS_DOWN = (RedisError, OSError, TimeoutError, RuntimeError)


class AnotherRun(RedisConnectionError):
    """A connection leads to another run of Redis than before: the pending command was meant for the earlier run."""


class NoPrimary(RedisConnectionError):
    """The Sentinels name no server that is a primary. Its text is a clause about Redis, which may be shown."""


class CacheError(Exception):
    """Something is wrong with the cache, not with the caller's input."""


class CacheUnavailable(CacheError):
    """Redis did not answer, or answered with an error."""


class NotAsked(CacheUnavailable):
    """Nothing was sent: Redis may not be believed, or may not be written to, or is known not to answer."""


class Outside(CacheUnavailable):
    """This process is a member of no epoch (`record.py`): it does not know whether this Redis is the one to believe."""


class NotInvalidated(CacheError):
    """A write is committed, but its invalidation failed. It is retried until it succeeds; meanwhile others may read the
    old value. Raised where no relay delivers the change. `result` is what the write returned."""

    result: object = None


class LoadTimeout(CacheError):
    """A load of this key took longer than a reader waits, or longer than its lease lasts."""


class Overloaded(CacheError):
    """Too many reads query the database past the cache: no more may."""


class TargetUnavailable(CacheError):
    """Raised by a `flush` or a `load` if the database is down, and nothing is wrong with the input."""


class NotDone(TargetUnavailable):
    """Raised by a `flush` or a `load` if the database has not done the work in time, and by a `flush` if the database
    answered with an unknown error. Part of the input may be to blame, or nothing in it."""


class Refused(CacheError):
    """Raised by a `flush` if the database refuses some of the input, and will refuse it again."""


class Unreadable(CacheError):
    """Returned by a `load` of many keys in place of a row that it cannot read. It is raised for that key alone."""


class BacklogFull(CacheError):
    """Too many writes are pending: no more are accepted."""


class KeysFull(CacheError):
    """Too many idempotency keys are remembered: no new ones are accepted."""


class KeyWorn(CacheError):
    """An idempotency key was used too often: it accepts nothing new."""

    def __init__(self, key: str, most: int) -> None:
        super().__init__(
            f"The idempotency key {key} was used {most} times for keys that it was not used for before, which is the "
            "most: use another one."
        )


class KeyUnreadable(CacheError):
    """The record of an idempotency key cannot be read, so its uses are unknown."""

    def __init__(self, key: str, record: str) -> None:
        super().__init__(
            f"What was counted under the idempotency key {key} cannot be told: what Redis has as {record[:400]} is "
            "no such record."
        )


class Behind(CacheError):
    """Too many writes are pending to build a total that is not cached, or they come too fast."""


class TotalOverflow(CacheError):
    """A total would be larger than can be counted exactly."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key[:100]} would have a larger total than can be counted exactly.")
        self.key = key

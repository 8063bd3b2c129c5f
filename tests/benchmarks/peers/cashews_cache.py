"""cashews on a unix socket, with types that hold whether it is installed or not."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from cashews import Cache, register_backend
from cashews.backends.redis import Redis
from cashews.picklers import PicklerType

F = TypeVar("F", bound=Callable[..., Any])

# cashews has no scheme for a unix socket, and passes the address on unchanged.
register_backend("unix", Redis, pass_uri=True, pickler=PicklerType.DEFAULT)


def cache_at(url: str) -> Any:
    """Returns a cache at `url`, with the default setup."""
    cache = Cache()
    cache.setup(url.partition("?")[0])
    return cache


def cached(cache: Any, key: str, *, lock: bool = False) -> Callable[[F], F]:
    """Returns cashews' decorator."""
    return cast("Callable[[F], F]", cache(ttl="1h", key=key, lock=lock))

"""A slot that is half moved: each key is at one of two nodes, so a script with several keys is refused (TRYAGAIN).

Commands with one key always work: the old node answers for what it has, and redirects the rest (ASK). So a script's
changes can be made key by key, if their order keeps a load from filling the old value in between:

    R holds the lease                    W removes the value, and would remove the lease next
    R fills the old value

What can go wrong: `CacheUnavailable` between the two. Then the lease is gone and the value is not: the caller repeats.
"""

from collections.abc import Awaitable, Callable

from redis.exceptions import TryAgainError

from ..errors import CacheUnavailable
from ..lease import LEASE
from ..lifetimes import ms
from .call import Call

Ask = Callable[[Call], Awaitable[object]]


def is_half_moved(error: object) -> bool:
    """Returns whether a script was refused because its keys are at two nodes."""
    return isinstance(error, CacheUnavailable) and isinstance(error.__cause__, TryAgainError)


async def invalidate_by_key(ask: Ask, name: str, lease: str) -> CacheUnavailable | None:
    """Voids a load in flight, and removes the value. Returns why it could not."""
    try:
        await ask(Call.of(lease, "DEL", lease))
        await ask(Call.of(name, "DEL", name))
    except CacheUnavailable as error:
        return error
    return None


async def revoke_by_key(ask: Ask, name: str, lease: str, token: str) -> None:
    """Takes over the lease, and removes the value. Raises CacheUnavailable."""
    await ask(Call.of(lease, "SET", lease, token, "PX", ms(LEASE)))
    await ask(Call.of(name, "DEL", name))

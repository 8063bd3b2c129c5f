"""The leases of one region in a cluster: each is at the node that owns the slot of its key.

What can go wrong: `CacheUnavailable`. A lease that a lost answer may have granted is given back.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic

from ..background import Background
from ..errors import CacheUnavailable
from ..lease import LEASE, K
from ..lifetimes import ms
from ..scripts import source
from .call import Call
from .half_moved import is_half_moved, revoke_by_key
from .sending import Sending

REVOKE, RELEASE = source("revoke"), source("release")


class ClusterLeases(Generic[K]):
    """The leases of one region. `names` returns the names of a value, of its lease and of its floor. Leases are given
    back in `background`."""

    def __init__(self, sending: Sending, names: Callable[[K], tuple[str, str, str]], background: Background) -> None:
        self._sending, self._names, self._background = sending, names, background

    async def claim(self, key: K, token: str) -> bool:
        """Takes the lease of a key, if it is free, and returns whether it was."""
        lease = self._names(key)[1]
        try:
            return bool(await self._sending.one(Call.of(lease, "SET", lease, token, "NX", "PX", ms(LEASE))))
        except CacheUnavailable:
            self.give_back([key], token)
            raise

    async def revoke(self, key: K, token: str) -> None:
        """Removes a value, and takes over its lease."""
        name, lease, _floor = self._names(key)
        try:
            await self._sending.one(Call.run(REVOKE, [name, lease], [token, ms(LEASE)]), persistent=True)
        except CacheUnavailable as error:
            if not is_half_moved(error):
                raise
            await revoke_by_key(self._sending.one, name, lease, token)

    def give_back(self, keys: Sequence[K], token: str) -> None:
        """Releases leases in the background."""
        self._background.start(self.release(keys, token))

    async def release(self, keys: Sequence[K], token: str) -> None:
        """Releases the leases that have this token. Never raises: leases end by themselves."""
        with suppress(CacheUnavailable):  # The failure was counted.
            calls = [Call.run(RELEASE, [self._names(key)[1]], [token]) for key in keys]
            await self._sending.send(calls, believed=False)

"""A write that cannot forget to invalidate: what cache-aside and read-through have in common.

    write   run the caller's write, which commits · invalidate what it changed · answer what it answered

    order = await orders.write(store.update(7, "teapot"), lambda order: {order.id: order.version})

What can go wrong: the write raises, and has committed all the same, as when its connection is lost at the COMMIT. Then
nothing is invalidated here. A relay invalidates it; without one, call `invalidate` when the outcome is known.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

from .errors import NotInvalidated
from .lease import K
from .reading import V
from .region import Region

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Invalidating(Generic[K, V]):
    """A strategy whose caller writes to the database."""

    def __init__(self, region: Region[K, V]) -> None:
        self._region = region

    async def write(self, save: Coroutine[Any, Any, T], changed: Callable[[T], Mapping[K, int]]) -> T:
        """Runs `save`, which returns when it has committed, then invalidates, and returns what `save` returned.

        `changed` is given that, and answers the new version of each key that was changed: a creation takes its key from
        there, and a row that was renamed has two keys. Both halves run to their end, also when the caller goes away
        between them.

        Raises what `save` raises; and NotInvalidated, which has the result, when the write is committed and Redis could
        not be told (without a relay), or `changed` does not say of what.
        """
        return await self._region.finish(self._write(save, changed))

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`, after a write that somebody else has made and committed. Before the commit,
        a reader could load the old row and keep it. When it returns, nobody reads an older one."""
        await self._region.invalidate(key, version)

    async def _write(self, save: Coroutine[Any, Any, T], changed: Callable[[T], Mapping[K, int]]) -> T:
        result = await save
        failed: Exception | None = None
        try:
            for key, version in changed(result).items():
                try:
                    await self.invalidate(key, version)
                except (NotInvalidated, ValueError, TypeError) as error:  # The other keys are invalidated all the same.
                    failed = error
        except Exception as error:  # noqa: BLE001  # Whatever `changed` raises: the write is committed by now.
            failed = error
        if failed is None:
            return result
        if not isinstance(failed, NotInvalidated):
            logger.error("A write is committed, and not all that it changed was invalidated: %r", failed)
            cause, failed = failed, NotInvalidated(f"The write is committed, and not invalidated: {failed!r}.")
            failed.__cause__ = cause
        failed.result = result
        raise failed

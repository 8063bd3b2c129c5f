"""A write that cannot forget to invalidate, shared by cache-aside and read-through.

    write   run the caller's write, which commits · invalidate what it changed · return its result

    order = await orders.write(store.update(7, "teapot"), lambda order: {order.id: order.version})

What can go wrong: the write raises although it has committed, for example because its connection is lost at COMMIT.
Then nothing is invalidated here. A relay invalidates it; without one, call `invalidate` once the outcome is known.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from inspect import isawaitable
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
        """Runs `save`, which returns once it has committed, then invalidates, and returns the result of `save`.

        `changed` receives that result and returns the new version of each changed key: a creation takes its key from
        the result, and a renamed row has two keys. Both halves run to their end even if the caller goes away between
        them.

        Raises what `save` raises. Raises NotInvalidated, which has the result, if the write is committed but its
        invalidation failed (without a relay), or if `changed` failed to say what to invalidate.
        """
        if not isawaitable(save):
            raise TypeError(f"`write` takes the call of an async function, as in write(rename(7), …), not {save!r}.")
        return await self._region.finish(self._write(save, changed))

    async def invalidate(self, key: K, version: int) -> None:
        """Removes a value that is not of `version`, after a write that was made and committed elsewhere. Do not call it
        before the commit: a reader could load the old row and cache it. After it returns, nobody reads an older row."""
        await self._region.invalidate(key, version)

    async def _write(self, save: Coroutine[Any, Any, T], changed: Callable[[T], Mapping[K, int]]) -> T:
        result = await save
        failed: Exception | None = None
        try:
            versions = list(changed(result).items())
        except Exception as error:  # noqa: BLE001  # Whatever `changed` raises, the write is already committed.
            versions, failed = [], error
        for key, version in versions:
            try:
                await self.invalidate(key, version)
            except Exception as error:  # noqa: BLE001  # The other keys are invalidated nevertheless.
                failed = error
        if failed is None:
            return result
        if not isinstance(failed, NotInvalidated):
            logger.error("A write is committed, but not everything it changed was invalidated: %r", failed)
            cause, failed = (
                failed,
                NotInvalidated(
                    f"The write is committed but not invalidated: {failed!r}. What names the changed keys must return "
                    f"{{key: version}}. Without a relay, nothing retries it: call `invalidate`."
                ),
            )
            failed.__cause__ = cause
        failed.result = result
        raise failed

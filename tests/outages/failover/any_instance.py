"""The stock, called over HTTP on one instance or another."""

import random
from collections.abc import Sequence

from tests.histories.linearizability.http_target import HttpTarget
from tests.histories.linearizability.operation import Answer
from tests.histories.linearizability.target import Refused
from tests.keep_alive import Answer as Http


class Verified(HttpTarget):
    """One instance. What says of itself that it may be old says nothing."""

    def heard(self, answer: Http) -> None:
        """Refuses a hit that nobody could verify."""
        if "unverified" in answer.headers.get("cache-status", ""):
            raise Refused


class AnyInstance:
    """Calls a random instance each time."""

    def __init__(self, urls: Sequence[str], randomness: random.Random) -> None:
        self._targets, self._randomness = [Verified(url) for url in urls], randomness

    async def read(self, sku: str) -> Answer:
        """Reads the stock."""
        return await self._one().read(sku)

    async def put(self, sku: str, quantity: int) -> Answer:
        """Sets the stock."""
        return await self._one().put(sku, quantity)

    async def adjust(self, sku: str, delta: int) -> Answer:
        """Adjusts the stock."""
        return await self._one().adjust(sku, delta)

    async def delete(self, sku: str) -> Answer:
        """Removes the stock."""
        return await self._one().delete(sku)

    async def close(self) -> None:
        """Closes the connections."""
        for target in self._targets:
            await target.close()

    def _one(self) -> HttpTarget:
        return self._randomness.choice(self._targets)

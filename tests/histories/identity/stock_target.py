"""The stock of an instance in this process, as a client of the linearizability tests calls it."""

import random
import traceback
from collections.abc import Awaitable, Callable

from app.caching import CacheError
from app.errors import DatabaseUnavailable, NotFound, OutcomeUnknown, OutOfStock
from app.inventory.models import Adjustment, Change, Removal, Setting
from tests.coherence.conftest import Instance
from tests.histories.identity.deployment import Deployment
from tests.histories.linearizability.operation import Answer
from tests.histories.linearizability.target import Broken, Refused, Unknown


class StockTarget:
    """Calls a randomly chosen instance of a deployment each time."""

    def __init__(self, deployment: Deployment, randomness: random.Random, is_odd: Callable[[], bool]) -> None:
        """`is_odd` tells whether the database is incomplete at the moment, and so may raise any error."""
        self._deployment, self._randomness, self._is_odd = deployment, randomness, is_odd

    async def read(self, sku: str) -> Answer:
        """Reads the stock."""

        async def get(instance: Instance) -> Answer:
            reading = await instance.resources.inventory.get(sku)
            if not reading.verified:
                raise Refused  # It says of itself that it may be old.
            stock = reading.value
            return Answer(404) if stock is None else Answer(200, stock.quantity, stock.version)

        return await self._ask(get)

    async def put(self, sku: str, quantity: int) -> Answer:
        """Sets the stock."""
        return await self._change(sku, Setting(quantity))

    async def adjust(self, sku: str, delta: int) -> Answer:
        """Adjusts the stock."""
        return await self._change(sku, Adjustment(delta))

    async def delete(self, sku: str) -> Answer:
        """Removes the stock."""
        return await self._change(sku, Removal())

    async def _change(self, sku: str, change: Change) -> Answer:
        async def put(instance: Instance) -> Answer:
            stock = await instance.resources.inventory.put(sku, change)
            if stock is None:
                return Answer(204)
            return Answer(201 if stock.created else 200, stock.quantity, stock.version)

        return await self._ask(put)

    async def _ask(self, call: Callable[[Instance], Awaitable[Answer]]) -> Answer:
        with self._deployment.called(self._randomness) as (_name, instance):
            try:
                return await call(instance)
            except Refused:
                raise
            except NotFound:
                return Answer(404)
            except OutOfStock as error:
                return Answer(409, available=error.available)
            except OutcomeUnknown as error:
                raise Unknown from error
            except (CacheError, DatabaseUnavailable) as error:
                raise Refused from error
            except Exception as error:
                if self._is_odd():
                    raise Unknown from error
                raise Broken("".join(traceback.format_exception(error))) from error

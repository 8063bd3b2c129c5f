"""How the cache of stock loads: write-through is told whether a row is safe to keep."""

from collections.abc import Awaitable, Callable

from app.caching import Locked
from app.inventory.models import Stock
from app.inventory.store import StockStore


def load_from(store: StockStore) -> Callable[[str], Awaitable[Stock | Locked[Stock] | None]]:
    """A row that a writer has locked is an answer, and nobody keeps it."""

    async def stock(sku: str) -> Stock | Locked[Stock] | None:
        found = await store.load(sku)
        return found.stock if found.unlocked else Locked(found.stock)

    return stock

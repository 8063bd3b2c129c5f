"""The loader of the stock cache. It tells write-through whether a row is safe to cache."""

from collections.abc import Awaitable, Callable

from app.caching import Locked
from app.inventory.models import Stock
from app.inventory.store import StockStore


def load_from(store: StockStore) -> Callable[[str], Awaitable[Stock | Locked[Stock] | None]]:
    """Creates a loader. A row that a writer has locked is returned as Locked: it is served but not cached."""

    async def stock(sku: str) -> Stock | Locked[Stock] | None:
        found = await store.load(sku)
        return found.stock if found.unlocked else Locked(found.stock)

    return stock

"""How the cache of products loads: read-through is told once how to read."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.caching import Unreadable
from app.errors import UnreadableRow
from app.products.models import Product
from app.products.store import ProductStore


def load_from(store: ProductStore) -> Callable[[Sequence[str]], Awaitable[Mapping[str, Product | Unreadable]]]:
    """One query for many products; a row that cannot be read fails alone."""

    async def products(skus: Sequence[str]) -> dict[str, Product | Unreadable]:
        rows = await store.get_many(skus)
        return {sku: Unreadable(str(row)) if isinstance(row, UnreadableRow) else row for sku, row in rows.items()}

    return products

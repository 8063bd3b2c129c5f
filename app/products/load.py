"""The loader of the product cache. Read-through receives it once, and then loads by itself."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.caching import Unreadable
from app.errors import UnreadableRow
from app.products.models import Product
from app.products.store import ProductStore


def load_from(store: ProductStore) -> Callable[[Sequence[str]], Awaitable[Mapping[str, Product | Unreadable]]]:
    """Creates a loader that reads many products with one query. A row that cannot be read fails alone."""

    async def products(skus: Sequence[str]) -> dict[str, Product | Unreadable]:
        rows = await store.get_many(skus)
        return {sku: Unreadable(str(row)) if isinstance(row, UnreadableRow) else row for sku, row in rows.items()}

    return products

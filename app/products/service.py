"""Products, read through the cache. The cache loads values itself; the application only has to invalidate.

read    ask the cache, nothing else
write   write to the database, which commits, then invalidate: one call does both, so neither can be forgotten
"""

from collections.abc import Sequence

from app.caching import Reading, ReadThrough, Unreadable
from app.errors import UnreadableRow
from app.products.models import NewProduct, Product, ProductChanges
from app.products.store import ProductStore
from app.row_tag import Expected


class Products:
    """The operations on products. They raise what the store and the cache raise."""

    def __init__(self, cache: ReadThrough[str, Product], store: ProductStore) -> None:
        self._cache = cache
        self._store = store

    async def get(self, sku: str) -> Reading[Product]:
        """Returns a reading of a product, which may say that there is none."""
        return await self._cache.get(sku)

    async def get_many(self, skus: Sequence[str]) -> list[Reading[Product] | Unreadable]:
        """Returns products in the order of `skus`, with Unreadable in place of one that cannot be read."""
        return await self._cache.get_many(skus)

    async def page(self, *, after: str, limit: int) -> list[Product | UnreadableRow]:
        """Returns products in the order of their skus, from the database: a page is no single key to cache under."""
        return await self._store.page(after=after, limit=limit)

    async def create(self, new: NewProduct) -> Product:
        """Adds a product. Also invalidates, because the absence of the product may be cached."""
        return await self._cache.write(self._store.insert(new), lambda product: {product.sku: product.version})

    async def change(self, sku: str, changes: ProductChanges, expected: Expected | None) -> Product:
        """Changes a product."""
        return await self._cache.write(
            self._store.update(sku, changes, expected), lambda product: {sku: product.version}
        )

    async def delete(self, sku: str, expected: Expected | None) -> None:
        """Removes a product."""
        await self._cache.write(self._store.delete(sku, expected), lambda version: {sku: version})

"""Products, read through the cache: it loads itself, and what is left to the application is to invalidate.

read    ask the cache, nothing else
write   write to the database, which commits, and then invalidate
"""

from collections.abc import Sequence

from app.caching import CacheUnavailable, Reading, ReadThrough
from app.products.models import NewProduct, Product, ProductChanges
from app.products.store import ProductStore


class Products:
    """What can be done with products. Raises what the store and the cache raise."""

    def __init__(self, cache: ReadThrough[str, Product], store: ProductStore) -> None:
        self._cache = cache
        self._store = store

    async def get(self, sku: str) -> Reading[Product]:
        """A product, or the knowledge that there is none."""
        return await self._cache.get(sku)

    async def get_many(self, skus: Sequence[str]) -> list[Reading[Product]]:
        """Many products, in the order of `skus`."""
        return await self._cache.get_many(skus)

    async def page(self, *, after: str, limit: int) -> list[Product]:
        """Products in the order of their skus, from the database: a page is not one key."""
        return await self._store.page(after=after, limit=limit)

    async def create(self, new: NewProduct) -> Product:
        """Adds a product. It invalidates, too: that there was no such product may be cached."""
        product = await self._store.insert(new)
        await self._invalidate(product.sku, product.version)
        return product

    async def change(self, sku: str, changes: ProductChanges, expected: frozenset[int] | None) -> Product:
        """Changes a product."""
        product = await self._store.update(sku, changes, expected)
        await self._invalidate(sku, product.version)
        return product

    async def delete(self, sku: str, expected: frozenset[int] | None) -> None:
        """Removes a product."""
        await self._invalidate(sku, await self._store.delete(sku, expected))

    async def _invalidate(self, sku: str, version: int) -> None:
        try:
            await self._cache.invalidate(sku, version)
        except CacheUnavailable:
            # It is committed, so it is not an error for the client. The outbox has the row: the relay invalidates when
            # Redis is back. The region has counted it.
            return

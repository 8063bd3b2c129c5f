"""Products, read through the cache: it loads itself, and what is left to the application is to invalidate.

read    ask the cache, nothing else
write   write to the database, which commits, and then invalidate: to the end, whoever goes away meanwhile
"""

from collections.abc import Sequence

from app.caching import Reading, ReadThrough, Unreadable
from app.errors import UnreadableRow
from app.products.models import NewProduct, Product, ProductChanges
from app.products.store import ProductStore
from app.row_tag import Expected


class Products:
    """What can be done with products. Raises what the store and the cache raise."""

    def __init__(self, cache: ReadThrough[str, Product], store: ProductStore) -> None:
        self._cache = cache
        self._store = store

    async def get(self, sku: str) -> Reading[Product]:
        """A product, or the knowledge that there is none."""
        return await self._cache.get(sku)

    async def get_many(self, skus: Sequence[str]) -> list[Reading[Product]]:
        """Many products, in the order of `skus`. Raises Unreadable, when one of them is."""
        return await self._cache.get_many(skus)

    async def get_each(self, skus: Sequence[str]) -> list[Reading[Product] | Unreadable]:
        """The same, with Unreadable in place of one that cannot be read."""
        return await self._cache.get_each(skus)

    async def page(self, *, after: str, limit: int) -> list[Product | UnreadableRow]:
        """Products in the order of their skus, from the database: a page is not one key."""
        return await self._store.page(after=after, limit=limit)

    async def create(self, new: NewProduct) -> Product:
        """Adds a product. It invalidates, too: that there was no such product may be cached."""
        return await self._cache.finish(self._create(new))

    async def change(self, sku: str, changes: ProductChanges, expected: Expected | None) -> Product:
        """Changes a product."""
        return await self._cache.finish(self._change(sku, changes, expected))

    async def delete(self, sku: str, expected: Expected | None) -> None:
        """Removes a product."""
        await self._cache.finish(self._delete(sku, expected))

    async def _create(self, new: NewProduct) -> Product:
        product = await self._store.insert(new)
        await self._cache.invalidate(product.sku, product.version)
        return product

    async def _change(self, sku: str, changes: ProductChanges, expected: Expected | None) -> Product:
        product = await self._store.update(sku, changes, expected)
        await self._cache.invalidate(sku, product.version)
        return product

    async def _delete(self, sku: str, expected: Expected | None) -> None:
        version = await self._store.delete(sku, expected)
        await self._cache.invalidate(sku, version)

"""Products in Postgres: SQL only. A method is one transaction, committed when it returns."""

from collections.abc import Sequence

from sqlalchemy import any_, bindparam, delete, func, insert, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from app.database import Database
from app.errors import Conflict, NotFound, PreconditionFailed
from app.products.models import NewProduct, Product, ProductChanges, products

COLUMNS = (
    products.c.sku,
    products.c.name,
    products.c.description,
    products.c.price,
    products.c.version,
    products.c.created_at,
    products.c.updated_at,
)


class ProductStore:
    """Reads and writes products. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_many(self, skus: Sequence[str]) -> dict[str, Product]:
        """The products that exist, by sku: one query."""
        query = select(*COLUMNS).where(products.c.sku == any_(bindparam("skus", list(skus), type_=ARRAY(Text))))
        async with self._database.reading("products") as connection:
            return {row.sku: Product(**row._mapping) for row in await connection.execute(query)}

    async def page(self, *, after: str, limit: int) -> list[Product]:
        """At most `limit` products with skus above `after`, in the order of their skus, byte by byte."""
        query = select(*COLUMNS).where(products.c.sku > after).order_by(products.c.sku).limit(limit)
        async with self._database.reading("products") as connection:
            return [Product(**row._mapping) for row in await connection.execute(query)]

    async def insert(self, new: NewProduct) -> Product:
        """Adds a product. Raises Conflict when the sku is taken."""
        statement = insert(products).values(**new.model_dump()).returning(*COLUMNS)
        try:
            async with self._database.writing("products") as connection:
                return Product(**(await connection.execute(statement)).one()._mapping)
        except IntegrityError as error:
            raise Conflict(f"The sku {new.sku} is taken.") from error

    async def update(self, sku: str, changes: ProductChanges, expected: frozenset[int] | None) -> Product:
        """Changes a product, if it is in one of the `expected` versions (None: in any).

        Raises NotFound and PreconditionFailed.
        """
        in_version = true() if expected is None else products.c.version.in_(expected)
        statement = update(products).where(products.c.sku == sku, in_version).values(**changes).returning(*COLUMNS)
        async with self._database.writing("products") as connection:
            while (row := (await connection.execute(statement)).one_or_none()) is None:
                await self._refuse(connection, sku, expected)
            return Product(**row._mapping)

    async def delete(self, sku: str, expected: frozenset[int] | None) -> int:
        """Removes a product, and answers the version of the removal. Raises NotFound and PreconditionFailed."""
        in_version = true() if expected is None else products.c.version.in_(expected)
        # A trigger has drawn the version just before, in this session.
        statement = delete(products).where(products.c.sku == sku, in_version).returning(func.currval("row_version"))
        async with self._database.writing("products") as connection:
            while (version := (await connection.execute(statement)).scalar_one_or_none()) is None:
                await self._refuse(connection, sku, expected)
            return int(version)

    async def _refuse(self, connection: AsyncConnection, sku: str, expected: frozenset[int] | None) -> None:
        """Says why no row was found; returns when one is there by now, deleted and created again meanwhile."""
        query = select(products.c.version).where(products.c.sku == sku)
        version = (await connection.execute(query)).scalar_one_or_none()
        if version is None:
            raise NotFound(f"There is no product {sku}.")
        if expected is not None and version not in expected:
            raise PreconditionFailed(f"Product {sku} is in version {version}, which If-Match does not name.")

"""Products in Postgres: SQL only. A method is one transaction, committed when it returns."""

from collections.abc import Sequence

from sqlalchemy import any_, bindparam, delete, func, insert, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from app.database import Database
from app.errors import Conflict, NotFound, PreconditionFailed
from app.look import Look
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

GET_MANY = Look(select(*COLUMNS).where(products.c.sku == any_(bindparam("skus", type_=ARRAY(Text)))))
BEHIND = select(*COLUMNS).where(products.c.sku > bindparam("after")).order_by(products.c.sku)
PAGE = Look(BEHIND.limit(bindparam("limit")))
VERSION = Look(select(products.c.version).where(products.c.sku == bindparam("sku")))


class ProductStore:
    """Reads and writes products. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_many(self, skus: Sequence[str]) -> dict[str, Product]:
        """The products that exist, by sku: one query."""
        rows = await self._database.look("products", GET_MANY, {"skus": list(skus)})
        return {row["sku"]: Product(**row) for row in rows}

    async def page(self, *, after: str, limit: int) -> list[Product]:
        """At most `limit` products with skus above `after`, in the order of their skus, byte by byte."""
        rows = await self._database.look("products", PAGE, {"after": after, "limit": limit})
        return [Product(**row) for row in rows]

    async def insert(self, new: NewProduct) -> Product:
        """Adds a product. Raises Conflict when the sku is taken."""
        statement = insert(products).values(**new.model_dump()).returning(*COLUMNS)
        try:
            async with self._database.writing("products") as connection:
                row = await self._database.change(connection, statement)
                assert row is not None, "An INSERT that answers no row has raised."
                return Product(**row)
        except IntegrityError as error:
            raise Conflict(f"The sku {new.sku} is taken.") from error

    async def update(self, sku: str, changes: ProductChanges, expected: frozenset[int] | None) -> Product:
        """Changes a product, if it is in one of the `expected` versions (None: in any).

        Raises NotFound and PreconditionFailed.
        """
        in_version = true() if expected is None else products.c.version.in_(expected)
        statement = update(products).where(products.c.sku == sku, in_version).values(**changes).returning(*COLUMNS)
        async with self._database.writing("products") as connection:
            while (row := await self._database.change(connection, statement)) is None:
                await self._refuse(connection, sku, expected)
            return Product(**row)

    async def delete(self, sku: str, expected: frozenset[int] | None) -> int:
        """Removes a product, and answers the version of the removal. Raises NotFound and PreconditionFailed."""
        in_version = true() if expected is None else products.c.version.in_(expected)
        # A trigger has drawn the version just before, in this session.
        version = func.currval("row_version").label("version")
        statement = delete(products).where(products.c.sku == sku, in_version).returning(version)
        async with self._database.writing("products") as connection:
            while (row := await self._database.change(connection, statement)) is None:
                await self._refuse(connection, sku, expected)
            return int(row["version"])

    async def _refuse(self, connection: AsyncConnection, sku: str, expected: frozenset[int] | None) -> None:
        """Says why no row was found; returns when one is there by now, deleted and created again meanwhile."""
        rows = await self._database.look_on(connection, VERSION, {"sku": sku})
        if not rows:
            raise NotFound(f"There is no product {sku}.")
        version = rows[0]["version"]
        if expected is not None and version not in expected:
            raise PreconditionFailed(f"Product {sku} is in version {version}, which If-Match does not name.")

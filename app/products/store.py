"""Products in Postgres: SQL only. A method is one transaction, committed when it returns."""

from collections.abc import Sequence

from sqlalchemy import any_, bindparam, delete, func, insert, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from app.availability import misfit
from app.database import Database, Row
from app.errors import Conflict, NotFound, UnreadableRow, Unrepresentable
from app.look import Look
from app.products.models import NewProduct, Product, ProductChanges, products
from app.readable import readable, refused, unreadable
from app.row_tag import EPOCH, Expected

COLUMNS = (
    products.c.sku,
    products.c.name,
    products.c.description,
    products.c.price,
    products.c.version,
    readable(products.c.created_at),
    readable(products.c.updated_at),
    EPOCH,
)

GET_MANY = Look(select(*COLUMNS).where(products.c.sku == any_(bindparam("skus", type_=ARRAY(Text)))))
BEHIND = select(*COLUMNS).where(products.c.sku > bindparam("after")).order_by(products.c.sku)
PAGE = Look(BEHIND.limit(bindparam("limit")))
VERSION = Look(select(products.c.version, EPOCH).where(products.c.sku == bindparam("sku")))


class ProductStore:
    """Reads and writes products. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_many(self, skus: Sequence[str]) -> dict[str, Product | UnreadableRow]:
        """Returns, with one query, the products that exist, by sku, with UnreadableRow in place of one that cannot be
        read. Raises Unrepresentable when Postgres cannot represent one of `skus`."""
        try:
            rows = await self._database.look("products", GET_MANY, {"skus": list(skus)})
        except DBAPIError as error:
            if (why := misfit(error)) is None:
                raise
            raise Unrepresentable(f"Postgres says: {why}.") from error
        return {row["sku"]: _product(row) for row in rows}

    async def page(self, *, after: str, limit: int) -> list[Product | UnreadableRow]:
        """Returns at most `limit` products with skus above `after`, ordered by the bytes of their skus, with
        UnreadableRow in place of one that cannot be read."""
        rows = await self._database.look("products", PAGE, {"after": after, "limit": limit})
        return [_product(row) for row in rows]

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

    async def update(self, sku: str, changes: ProductChanges, expected: Expected | None) -> Product:
        """Changes a product, if it has one of the `expected` tags. None accepts any.

        Raises NotFound, PreconditionFailed and UnreadableRow.
        """
        as_expected = true() if expected is None else expected.holds(products.c.version)
        statement = update(products).where(products.c.sku == sku, as_expected).values(**changes).returning(*COLUMNS)
        try:
            async with self._database.writing("products") as connection:
                while (row := await self._database.change(connection, statement)) is None:
                    await self._refuse(connection, sku, expected)
                if isinstance(changed := _product(row), UnreadableRow):
                    raise changed
                return changed
        except IntegrityError as error:
            raise refused(error, "Product", sku) or error from error

    async def delete(self, sku: str, expected: Expected | None) -> int:
        """Removes a product. Returns the version of the removal. Raises NotFound and PreconditionFailed."""
        as_expected = true() if expected is None else expected.holds(products.c.version)
        # The trigger has just drawn this version from the sequence, in this session.
        version = func.currval("row_version").label("version")
        statement = delete(products).where(products.c.sku == sku, as_expected).returning(version, EPOCH)
        async with self._database.writing("products") as connection:
            while (row := await self._database.change(connection, statement)) is None:
                await self._refuse(connection, sku, expected)
            return int(row["version"])

    async def _refuse(self, connection: AsyncConnection, sku: str, expected: Expected | None) -> None:
        """Raises the reason why no row matched. Returns if one exists by now, deleted and created again meanwhile."""
        rows = await self._database.look_on(connection, VERSION, {"sku": sku})
        if not rows:
            raise NotFound(f"There is no product {sku}.")
        if expected is not None and (refusal := expected.refusal(f"Product {sku}", **rows[0])) is not None:
            raise refusal


def _product(row: Row) -> Product | UnreadableRow:
    return unreadable(row, "Product", row["sku"]) or Product(**row)

"""Rows for one test, made over HTTP: other tests of the module have others."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from tests.keyed import Keyed

PIECES = 1_000_000


@dataclass(frozen=True, slots=True)
class Rows:
    """The paths of some users, products and stocks, and a page that nobody has viewed."""

    users: Sequence[str]
    products: Sequence[str]
    stocks: Sequence[str]
    page: str

    @property
    def paths(self) -> list[str]:
        """The paths of all rows."""
        return [*self.users, *self.products, *self.stocks]

    @property
    def one_of_each(self) -> list[str]:
        """The first path of each resource."""
        return [self.users[0], self.products[0], self.stocks[0]]


async def made(connection: Keyed, name: str, number: int = 5) -> Rows:
    """Creates `number` rows of each resource, named after `name`. Only stock is cached: it is written through."""
    users, products, stocks = [], [], []
    for each in range(number):
        user = await connection.post("/users", {"name": name, "email": f"{name}-{each}@example.com"})
        sku = f"{name}-{each}"
        product = await connection.post("/products", {"sku": sku, "name": name, "price": "1.00"})
        stock = await connection.ask(f"/inventory/{sku}", method="PUT", body={"quantity": PIECES})
        assert (user.status, product.status, stock.status) == (201, 201, 201)
        users.append(user.headers["location"])
        products.append(f"/products/{sku}")
        stocks.append(f"/inventory/{sku}")
    return Rows(users, products, stocks, f"/page-views/{name}")


async def is_relayed(sql: asyncpg.Connection) -> bool:
    """Whether Redis was told of all changes. Until then it is not believed without Postgres."""
    return not await sql.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE done_at IS NULL)")

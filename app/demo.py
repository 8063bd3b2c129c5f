"""The demo data that the examples in the README, docs/ and /docs use. It is added to empty tables only."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Table, func, select
from sqlalchemy.dialects.postgresql import insert

from app.database import open_database
from app.inventory.models import stock
from app.page_views.models import page_views
from app.products.models import products
from app.users.models import users

USERS = (
    (1, "Ada Lovelace", "ada@example.com"),
    (2, "Alan Turing", "alan@example.com"),
    (3, "Barbara Liskov", "barbara@example.com"),
    (4, "Donald Knuth", "donald@example.com"),
    (5, "Edsger Dijkstra", "edsger@example.com"),
    (6, "Frances Allen", "frances@example.com"),
    (7, "Jim Gray", "jim@example.com"),
    (8, "Katherine Johnson", "katherine@example.com"),
    (9, "Leslie Lamport", "leslie@example.com"),
    (10, "Margaret Hamilton", "margaret@example.com"),
)

PRODUCTS = (
    ("KETTLE-1", "Kettle, 1 litre", "Enamel, red. Whistles.", "19.90"),
    ("TEAPOT-1", "Teapot", "Stoneware, for four cups.", "24.50"),
    ("CUP-1", "Cup", "Stoneware.", "6.20"),
    ("CUP-1/SAUCER", "Saucer", "Fits the cup.", "3.80"),
    ("TEA-GREEN-100", "Green tea, 100 g", None, "7.35"),
    ("TEA-BLACK-100", "Black tea, 100 g", None, "5.95"),
    ("STRAINER-1", "Tea strainer", "Steel, fine mesh.", "4.00"),
    ("TIMER-1", "Sand timer", "Three, four and five minutes.", "11.25"),
)

STOCK = (
    ("KETTLE-1", 30),
    ("TEAPOT-1", 12),
    ("CUP-1", 240),
    ("CUP-1/SAUCER", 180),
    ("TEA-GREEN-100", 75),
    ("TEA-BLACK-100", 90),
    ("STRAINER-1", 3),
    ("TIMER-1", 0),
)

PAGE_VIEWS = (
    ("home", 15_847_293),
    ("products/KETTLE-1", 48_210),
    ("products/TEAPOT-1", 31_877),
    ("products/CUP-1", 12_034),
    ("news/2026/a-cup-for-everybody", 4_411),
    ("about", 902),
)

DATA: tuple[tuple[Table, tuple[str, ...], tuple[tuple[object, ...], ...]], ...] = (
    (users, ("id", "name", "email"), USERS),
    (products, ("sku", "name", "description", "price"), PRODUCTS),
    (stock, ("sku", "quantity"), STOCK),
    (page_views, ("page", "views"), PAGE_VIEWS),
)


@dataclass(frozen=True, slots=True)
class Rows:
    """The number of rows in each resource's table."""

    users: int
    products: int
    stock: int
    page_views: int

    def __str__(self) -> str:
        return f"{self.users} users, {self.products} products, stock of {self.stock}, views of {self.page_views} pages"


async def add_demo_data(url: str) -> Rows:
    """Fills the empty tables of the database at `url`. Returns how many rows each table has then.

    It runs at each start, and does not restore a row that was removed. Raises DatabaseUnavailable.
    """
    async with (
        open_database(url, connections=1, timeout=timedelta(seconds=30), counted=lambda resource: None) as database,
        database.writing("demo") as connection,
    ):
        counts = []
        for table, columns, rows in DATA:
            count = await connection.scalar(select(func.count()).select_from(table)) or 0
            if count == 0:
                # Two instances that start together may both find the table empty.
                added = insert(table).on_conflict_do_nothing()
                await connection.execute(added, [dict(zip(columns, row, strict=True)) for row in rows])
                count = len(rows)
            counts.append(count)
    return Rows(*counts)

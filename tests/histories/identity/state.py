"""What a database has at one moment, read without the application."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from tests.caching.write_behind.views import COUNTED
from tests.histories.linearizability.checker import Stock


class Found(NamedTuple):
    """A row of users or products: its name and its version."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class State:
    """The rows by resource and key, the stock by SKU, and the views of each page."""

    rows: Mapping[str, Found]
    stock: Mapping[str, Stock]
    pages: Mapping[str, int]

    @classmethod
    async def of(cls, sql: asyncpg.Connection) -> "State":
        """Reads what this connection sees. It is all of one moment if the transaction has one snapshot."""
        rows = await sql.fetch(
            "SELECT 'users/' || id AS key, name, version FROM users"
            " UNION ALL SELECT 'products/' || sku, name, version FROM products"
        )
        return cls(
            rows={row["key"]: Found(row["name"], row["version"]) for row in rows},
            stock={
                row["sku"]: Stock(row["quantity"], row["version"], exact=True)
                for row in await sql.fetch("SELECT sku, quantity, version FROM stock")
            },
            pages={row["page"]: row["views"] for row in await sql.fetch(COUNTED)},
        )

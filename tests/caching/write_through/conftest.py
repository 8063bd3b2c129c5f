"""Write-through as inventory uses it, over a real Redis and a real Postgres."""

from tests.inventory.conftest import inventory, load, region, store

__all__ = ["inventory", "load", "region", "store"]

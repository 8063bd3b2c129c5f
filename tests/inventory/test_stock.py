"""Stock is never negative, and an adjustment counts once, however many buyers there are."""

import asyncio

import pytest
from redis.asyncio import Redis

from app.errors import OutOfStock
from app.inventory.models import Adjustment, Setting, Stock
from tests.inventory.conftest import Inventory


async def quantity(inventory: Inventory, sku: str = "A") -> int | None:
    """Reads the quantity."""
    stock = (await inventory.get(sku)).value
    return None if stock is None else stock.quantity


async def test_a_refused_adjustment_leaves_no_trace_in_the_cache(inventory: Inventory, redis: Redis) -> None:
    await inventory.put("A", Setting(3))
    with pytest.raises(OutOfStock, match="Only 3 of A are left, and 5 were asked for"):
        await inventory.put("A", Adjustment(-5))
    assert await redis.get("stock:{A}:lease") is None
    assert await quantity(inventory) == 3
    assert await quantity(inventory) == 3


async def test_thirty_of_fifty_buyers_get_one_of_thirty_pieces(inventory: Inventory) -> None:
    await inventory.put("A", Setting(30))
    sales = await asyncio.gather(*(inventory.put("A", Adjustment(-1)) for _ in range(50)), return_exceptions=True)
    sold = [sale.quantity for sale in sales if isinstance(sale, Stock)]
    assert sorted(sold) == list(range(30))
    assert sum(isinstance(sale, OutOfStock) for sale in sales) == 20
    assert await quantity(inventory) == 0


async def test_a_repeated_adjustment_counts_once_and_returns_the_same_answer(inventory: Inventory) -> None:
    await inventory.put("A", Setting(30))
    answers = await asyncio.gather(*(inventory.put("A", Adjustment(-2, "order-1")) for _ in range(20)))
    assert {answer.quantity for answer in answers if answer is not None} == {28}
    await inventory.put("A", Adjustment(-3, "order-2"))
    again = await inventory.put("A", Adjustment(-2, "order-1"))
    assert again is not None
    assert again.quantity == 28
    assert await quantity(inventory) == 25

"""Stock: how many pieces of a SKU there are, and the adjustments made with an idempotency key."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Table, Text, func

from app.database import metadata
from app.readable import SKU_FORM, range_of
from app.row_tag import Expected

LARGEST = 2**53 - 1
"""The largest number that every JSON parser reads exactly."""

stock = Table(
    "stock",
    metadata,
    # No foreign key to products: stock is independent of them.
    Column("sku", Text(collation="C"), primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),  # A trigger sets it and updated_at on each write.
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint(f"quantity BETWEEN 0 AND {LARGEST}", name="quantity_range"),
    CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
    CheckConstraint(SKU_FORM, name="sku_form"),
    range_of("updated_at"),
)

stock_adjustments = Table(
    "stock_adjustments",
    metadata,
    # The result of an adjustment, stored under its idempotency key, so that a retry gets the same answer.
    Column("sku", Text(collation="C"), primary_key=True),
    Column("key", Text(collation="C"), primary_key=True),
    Column("delta", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    range_of("updated_at"),
)


class Stock(BaseModel):
    """How many pieces of a SKU there are."""

    model_config = ConfigDict(frozen=True)

    sku: str = Field(examples=["KETTLE-1"])
    quantity: int = Field(examples=[30])
    version: int = Field(examples=[7])
    updated_at: datetime
    created: bool = Field(False, exclude=True)  # Whether the change that returns it created it. Not part of the stock.
    epoch: str | None = Field(None, exclude=True)  # The epoch in which it was read or written.


@dataclass(frozen=True, slots=True)
class Setting:
    """Sets the quantity, whatever it was before."""

    quantity: int
    expected: Expected | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Adds `delta`, which may be negative, to the quantity. A retry with the same `key` returns what the first attempt
    returned, whatever `expected` says by then."""

    delta: int
    key: str | None = None
    expected: Expected | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes the stock."""

    expected: Expected | None = None


Change = Setting | Adjustment | Removal
"""A change of stock."""

"""Stock: how many pieces of a SKU there are, and the adjustments that carried an idempotency key."""

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
    # No foreign key to products: stock stands alone.
    Column("sku", Text(collation="C"), primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),  # A trigger sets it, and updated_at, at each write.
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint(f"quantity BETWEEN 0 AND {LARGEST}", name="quantity_range"),
    CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
    CheckConstraint(SKU_FORM, name="sku_form"),
    range_of("updated_at"),
)

stock_adjustments = Table(
    "stock_adjustments",
    metadata,
    # What an adjustment answered, kept with its key, so that a repetition gets the same answer.
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
    created: bool = Field(False, exclude=True)  # By the change that answers it; it is not part of the stock.
    epoch: str | None = Field(None, exclude=True)  # In which it was read or written.


@dataclass(frozen=True, slots=True)
class Setting:
    """So many pieces there are, whatever there were."""

    quantity: int
    expected: Expected | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """So many pieces more, or less. A repetition with the same `key` answers what the first one answered, whatever is
    expected by now."""

    delta: int
    key: str | None = None
    expected: Expected | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """There is no such stock any more."""

    expected: Expected | None = None


Change = Setting | Adjustment | Removal
"""What can be done to stock."""

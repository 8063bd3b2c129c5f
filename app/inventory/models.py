"""Stock: how many pieces of a SKU there are, and the adjustments that carried an idempotency key."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Table, Text, func

from app.database import metadata

stock = Table(
    "stock",
    metadata,
    # No foreign key to products: stock stands alone.
    Column("sku", Text(collation="C"), primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),  # A trigger sets it, and updated_at, at each write.
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # The largest number that every JSON parser reads exactly.
    CheckConstraint("quantity BETWEEN 0 AND 9007199254740991", name="quantity_range"),
    CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
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
)

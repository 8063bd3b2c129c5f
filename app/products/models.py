"""A product: the table, the value, and the request bodies."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Table, Text, func
from typing_extensions import TypedDict

from app.database import metadata
from app.readable import SKU_FORM, range_of

products = Table(
    "products",
    metadata,
    Column("sku", Text(collation="C"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("price", Text, nullable=False),  # As it was sent: 2.50 stays 2.50.
    Column("version", BigInteger, nullable=False),  # A trigger sets it and updated_at on each write.
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
    CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
    CheckConstraint("char_length(description) <= 4000", name="description_length"),
    CheckConstraint(SKU_FORM, name="sku_form"),
    range_of("created_at"),
    range_of("updated_at"),
    CheckConstraint(r"price ~ '^[0-9]{1,10}(\.[0-9]{1,4})?$'", name="price_format"),
)


class Product(BaseModel):
    """A product as stored in the database."""

    model_config = ConfigDict(frozen=True)

    sku: str = Field(examples=["KETTLE-1"])
    name: str = Field(examples=["Kettle, 1 litre"])
    description: str | None = Field(examples=["Enamel, red. Whistles."])
    price: str = Field(examples=["19.90"])
    version: int = Field(examples=[7])
    created_at: datetime
    updated_at: datetime
    epoch: str | None = Field(None, exclude=True)  # The epoch in which it was read or written. Not part of the product.


def _has_a_url(sku: str) -> str:
    # HTTP clients resolve both as directory steps and never send them, percent-encoded or not.
    if sku in (".", ".."):
        raise ValueError("must not be . or .., which no URL can name")
    return sku


Sku = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        # No control characters, and no whitespace at either end.
        pattern=r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
        json_schema_extra={"not": {"enum": [".", ".."]}},
    ),
    AfterValidator(_has_a_url),
]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Description = Annotated[str, Field(max_length=4000, pattern=r"^[^\x00]*$")]
Price = Annotated[str, Field(pattern=r"^[0-9]{1,10}(\.[0-9]{1,4})?$", description="A decimal number, as text.")]


class NewProduct(BaseModel):
    """The body that creates a product."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"sku": "KETTLE-2", "name": "Kettle, 2 litres", "description": None, "price": "24.90"}]
        },
    )

    sku: Sku
    name: Name
    description: Description | None = None
    price: Price


class ProductChanges(TypedDict, total=False):
    """The changes to a product. Every field is optional; the sku cannot change."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's own way

    name: Name
    description: Description | None
    price: Price


def _not_empty(changes: ProductChanges) -> ProductChanges:
    if not changes:
        raise ValueError("must have at least one of name, description, price")
    return changes


ProductPatch = Annotated[
    ProductChanges,
    AfterValidator(_not_empty),
    Field(json_schema_extra={"minProperties": 1, "examples": [{"price": "19.90"}]}),
]
"""The changes that a client sends: at least one field."""

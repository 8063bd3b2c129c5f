"""A user: the table, the value, and the request bodies."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Identity, Index, Table, Text, column, func
from typing_extensions import TypedDict

from app.database import metadata
from app.readable import range_of

users = Table(
    "users",
    metadata,
    # Ids up to 1,000 are reserved for the demo data, so that its examples work in any database.
    Column("id", BigInteger, Identity(start=1001), primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("version", BigInteger, nullable=False),  # A trigger sets it and updated_at on each write.
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("updated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
    CheckConstraint("char_length(email) BETWEEN 3 AND 254", name="email_length"),
    CheckConstraint("id >= 1", name="id_range"),
    range_of("created_at"),
    range_of("updated_at"),
    Index("uq_users_email", func.lower(column("email")), unique=True),  # Upper and lower case are one address.
)


class User(BaseModel):
    """A user as stored in the database."""

    model_config = ConfigDict(frozen=True)

    id: int = Field(examples=[1])
    name: str = Field(examples=["Ada Lovelace"])
    email: str = Field(examples=["ada@example.com"])
    version: int = Field(examples=[7])
    created_at: datetime
    updated_at: datetime
    epoch: str | None = Field(None, exclude=True)  # The epoch in which it was read or written. Not part of the user.


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Email = Annotated[
    str,
    Field(
        max_length=254,
        # Something before one @, and a domain with a dot after it. Only a mail to it would show whether it exists.
        pattern=r"^[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s.\x00-\x1f\x7f-\x9f]+(\.[^@\s.\x00-\x1f\x7f-\x9f]+)+$",
    ),
]


class NewUser(BaseModel):
    """The body that creates a user."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "Grace Hopper", "email": "grace.hopper@example.com"}]}
    )

    name: Name
    email: Email


class UserChanges(TypedDict, total=False):
    """The changes to a user. Every field is optional."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's own way

    name: Name
    email: Email


def _not_empty(changes: UserChanges) -> UserChanges:
    if not changes:
        raise ValueError("must have at least one of name, email")
    return changes


UserPatch = Annotated[
    UserChanges,
    AfterValidator(_not_empty),
    Field(json_schema_extra={"minProperties": 1, "examples": [{"name": "Ada King"}]}),
]
"""The changes that a client sends: at least one field."""

"""The outbox: one row for each change of a cached row, written by triggers in the same transaction."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Table, Text, func, text

from app.database import metadata

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("resource", Text, nullable=False),  # The table that changed.
    Column("key", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("done_at", DateTime(timezone=True)),
    # The relay asks several times a second for what is not done; nearly every row is.
    Index("ix_outbox_undone", "id", postgresql_where=text("done_at IS NULL")),
    Index("ix_outbox_done_at", "done_at", postgresql_where=text("done_at IS NOT NULL")),
)

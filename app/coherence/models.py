"""The outbox: one row for each change of a cached row, written by triggers in the same transaction. And the epochs:
which Redis is believed with which history of this database."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Table, Text, Uuid, func, text

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

# One row, written by the migration: it travels with dumps, so a restored or promoted copy is the same deployment.
deployment = Table("deployment", metadata, Column("id", Uuid, primary_key=True))

epochs = Table(
    "epochs",
    metadata,
    # The greatest counts.
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
    Column("run", Text, nullable=False),  # Of the Redis that is believed.
    Column("history", Text, nullable=False),  # Of this database, as it was when the epoch began.
    Column("begun_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # Who wants to begin the next one, and with which Redis.
    Column("claim", Text),
    Column("claimed_run", Text),
)

"""The tables of coherence.

The outbox has one row for each change of a cached row, written by triggers in the same transaction. The epochs say
which Redis is trusted with which history of this database.
"""

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
    # The relay queries the undone rows several times a second, and nearly all rows are done.
    Index("ix_outbox_undone", "id", postgresql_where=text("done_at IS NULL")),
    Index("ix_outbox_done_at", "done_at", postgresql_where=text("done_at IS NOT NULL")),
)

# One row, written by the migration. Dumps contain it, so a restored or promoted copy is the same deployment.
deployment = Table("deployment", metadata, Column("id", Uuid, primary_key=True))

epochs = Table(
    "epochs",
    metadata,
    # The greatest number is the current epoch.
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
    Column("run", Text, nullable=False),  # Of the trusted Redis.
    Column("history", Text, nullable=False),  # Of this database, when the epoch began.
    Column("begun_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # The token of the claim to the next epoch, and the run of Redis that it is for.
    Column("claim", Text),
    Column("claimed_run", Text),
)

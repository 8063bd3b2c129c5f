"""Page views: the counters, the ledger of applied batches, and the dead letters."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Identity, Integer, LargeBinary, Table, Text, func

from app.database import metadata

page_views = Table(
    "page_views",
    metadata,
    Column("page", Text(collation="C"), primary_key=True),
    Column("views", BigInteger, nullable=False),
    CheckConstraint("octet_length(page) BETWEEN 1 AND 2048", name="page_length"),
    CheckConstraint("views >= 0", name="views_range"),
)

applied = Table(
    "applied",
    metadata,
    # The ledger: a batch that stands here was added to the counters. The hour is the batch's own (a batch id begins
    # with its time), so one batch always meets the same partition, and a partition is dropped whole when it is too old.
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("batch", Text(collation="C"), primary_key=True),
    postgresql_partition_by="RANGE (hour)",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("page", Text),
    Column("delta", BigInteger),
    Column("batch", Text),
    Column("entry", LargeBinary),  # The bytes as they came, where they could not be decoded.
    Column("reason", Text, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
)

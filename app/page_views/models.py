"""Page views: the counters, the ledger of applied batches, and the dead letters."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    true,
)

from app.database import metadata
from app.readable import range_of

EXACT = 2**53 - 1
"""The largest number of views of a page. Redis cannot add larger ones exactly, nor can every JSON parser read them."""

page_views = Table(
    "page_views",
    metadata,
    Column("page", Text(collation="C"), primary_key=True),
    Column("views", BigInteger, nullable=False),
    CheckConstraint("octet_length(page) BETWEEN 1 AND 2048", name="page_length"),
    CheckConstraint("views >= 0", name="views_range"),
    CheckConstraint(f"views <= {EXACT}", name="views_exact"),
)

applied = Table(
    "applied",
    metadata,
    # The ledger: a batch in this table was added to the counters. The hour is the batch's own (a batch id begins with
    # its time), so a batch always maps to the same partition, and a partition is dropped whole when it is too old.
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("batch", Text(collation="C"), primary_key=True),
    postgresql_partition_by="RANGE (hour)",
)

ledger_hours = Table(
    "ledger_hours",
    metadata,
    # The partitions of the ledger, numbered in the order in which they were opened, whatever any clock says.
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("number", BigInteger, Identity(), nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint(
        "isfinite(hour) AND hour = date_trunc('hour', hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'", name="whole_hour"
    ),
)

ledger_floor = Table(
    "ledger_floor",
    metadata,
    # One row: it is unknown whether a batch whose hour is below was counted.
    Column("one", Boolean, server_default=true(), primary_key=True),
    Column("hour", DateTime(timezone=True), nullable=False),
    CheckConstraint("one", name="one_row"),
)

set_aside = Table(
    "set_aside",
    metadata,
    # Entries that became dead letters and have no hour in the ledger: batches below its floor, and bytes that are no
    # batch. Rows are kept, so that an entry delivered again is recognized.
    Column("batch", Text(collation="C"), primary_key=True),
)

parked_views = Table(
    "parked_views",
    metadata,
    # Views that are counted and wait for their page's row. While a page has a `blocked` row here, all its new views are
    # parked too, without a try, which would only hold up other pages.
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("page", Text(collation="C"), nullable=False, index=True),
    Column("delta", BigInteger, nullable=False),
    Column("blocked", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("parked_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("tried_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint("delta > 0", name="delta_range"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("page", Text),
    Column("delta", BigInteger),
    Column("batch", Text),
    Column("entry", LargeBinary),  # The raw bytes, where they could not be decoded.
    Column("reason", Text, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    range_of("created_at"),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """A batch of views: its id, when the id was made, and the number of views per page."""

    id: str
    made_at: datetime
    deltas: Mapping[str, int]

    @property
    def hour(self) -> datetime:
        """The hour under which the ledger records the batch: the id's own, whatever any clock says."""
        return hour_of(self.made_at)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Views that could not be counted, and why. Without a `page` they can never be counted, and `entry` holds their raw
    bytes. `deliveries` is the number of attempts."""

    id: int
    page: str | None
    delta: int | None
    batch: str | None
    entry: bytes | None
    reason: str
    deliveries: int
    created_at: datetime


def hour_of(time: datetime) -> datetime:
    """Returns the start of the hour that contains `time`, in UTC."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)

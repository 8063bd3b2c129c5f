"""Rows that Postgres may hold and this application cannot say: a time of the year 10000, or infinity.

Python has no such time. To decode it would fail the whole query, and with it the rows of others that it was to bring.
So a query names a time by `readable`, which is NULL where there is none that can be said, and the row fails alone.

    SELECT created_at …                  one row of the year 10000: all 500 products of this query are an error
    SELECT CASE WHEN … created_at END    it is that row's own, and names it

The tables refuse such times by a CHECK. What was there before the migration that brought it, they still hold.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, case, literal_column
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import Label

from app.availability import constraint
from app.errors import UnreadableRow

FIRST, LAST = "timestamptz '0001-01-01 00:00:00+00'", "timestamptz '9999-12-31 23:59:59.999999+00'"
SKU_FORM = "sku !~ '^[[:space:]]|[[:space:]]$|[[:cntrl:]]' AND sku NOT IN ('.', '..')"
"""How a table refuses most of the skus that no URL names: the rest depends on the database's encoding."""
OURS = re.compile(r"ck_[a-z_]+_(created_at|updated_at)_range")


def readable(column: ColumnElement[datetime]) -> Label[datetime | None]:
    """The column, under its own name; NULL where it has a time that Python has not."""
    said = case((column.between(literal_column(FIRST), literal_column(LAST)), column))
    return said.label(str(getattr(column, "name", None)))


def range_of(name: str) -> CheckConstraint:
    """The rule by which a table refuses what `readable` leaves out."""
    return CheckConstraint(f"{name} BETWEEN {FIRST} AND {LAST}", name=f"{name}_range")


def unreadable(row: Mapping[str, Any], what: str, key: int | str) -> UnreadableRow | None:
    """Why a row cannot be said; None when it can."""
    for name in ("created_at", "updated_at"):
        if name in row and row[name] is None:
            return UnreadableRow(what, key, name)
    return None


def refused(error: IntegrityError, what: str, key: int | str) -> UnreadableRow | None:
    """The same of a row that was to be changed, and whose time the table does not take again."""
    broken = OURS.fullmatch(constraint(error))
    return None if broken is None else UnreadableRow(what, key, broken[1])

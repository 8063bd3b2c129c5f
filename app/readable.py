"""Rows that Postgres can hold and this application cannot represent: with a time in the year 10000, or infinity.

Python has no such time. Decoding it would fail the whole query, including all other rows in its result. So a query
selects a time with `readable`, which is NULL for a time that Python cannot represent, and only that row fails.

    SELECT created_at …                  one row of the year 10000: the query fails for all its 500 products
    SELECT CASE WHEN … created_at END    only that row is an error, which names it

The tables refuse such times with a CHECK. Rows older than its migration may still have them.
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
"""The CHECK by which a table refuses most skus that no URL can name. The rest depends on the database's encoding."""
OURS = re.compile(r"ck_[a-z_]+_(created_at|updated_at)_range")


def readable(column: ColumnElement[datetime]) -> Label[datetime | None]:
    """Returns the column under its own name, with NULL for a time that Python cannot represent."""
    said = case((column.between(literal_column(FIRST), literal_column(LAST)), column))
    return said.label(str(getattr(column, "name", None)))


def range_of(name: str) -> CheckConstraint:
    """Returns the CHECK by which a table refuses the times that `readable` turns into NULL."""
    return CheckConstraint(f"{name} BETWEEN {FIRST} AND {LAST}", name=f"{name}_range")


def unreadable(row: Mapping[str, Any], what: str, key: int | str) -> UnreadableRow | None:
    """Returns why a row cannot be represented, or None if it can."""
    for name in ("created_at", "updated_at"):
        if name in row and row[name] is None:
            return UnreadableRow(what, key, name)
    return None


def refused(error: IntegrityError, what: str, key: int | str) -> UnreadableRow | None:
    """Returns the same for a row whose change the CHECK refused because of its old time."""
    broken = OURS.fullmatch(constraint(error))
    return None if broken is None else UnreadableRow(what, key, broken[1])

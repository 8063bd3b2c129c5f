"""The tag of a row: its version, and the epoch of which that is.

    27-3f9c2a10b4d5e6f7     version 27, in the epoch whose token is 3f9c2a10b4d5e6f7

A version alone names no content: a database that was restored gives the same versions out again.

    R reads version 5                                       the database is restored, and W's change is version 5 again
    R has 5: he would be told that nothing has changed, and his change of 5 would overwrite W's

The statement that reads or changes the row says by itself of which epoch it was, and compares what is expected: what an
instance believes may be older. A dump brings the epochs of its time along; so an epoch counts only with its history.

What can go wrong: from the moment at which a database is another one until the next epoch begins, no row has a tag.
"""

import re
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Text, any_, cast, false, literal, literal_column
from sqlalchemy.dialects.postgresql import ARRAY

from app.errors import PreconditionFailed

# A history as `coherence/epochs.py` writes it. A standby has no position in the log, and raises when it is asked.
EPOCH = literal_column(
    """(SELECT CASE WHEN pg_is_in_recovery() THEN NULL WHEN history = concat_ws('/',
  (pg_control_system()).system_identifier,
  ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  array_to_string(ARRAY['users'::regclass, 'products'::regclass, 'stock'::regclass, 'page_views'::regclass]::oid[], '-')
) THEN token END FROM epochs ORDER BY n DESC LIMIT 1)""",
    Text,
).label("epoch")
"""The token of the epoch in which a statement is carried out, NULL in none."""

OURS = re.compile(r"[1-9][0-9]*-([0-9a-f]{16})")


def row_tag(version: int, epoch: str) -> str:
    """The tag of a row."""
    return f"{version}-{epoch}"


@dataclass(frozen=True, slots=True)
class Expected:
    """The tags one of which a row must have to be changed. The `weak` ones are no use for that, whatever they name."""

    tags: frozenset[str]
    weak: frozenset[str] = frozenset()

    def holds(self, version: ColumnElement[int]) -> ColumnElement[bool]:
        """Whether the row with this version, and the epoch of the statement, has one of the tags: for its WHERE."""
        if not self.tags:
            return false()
        tag = cast(version, Text).concat(literal("-", Text)).concat(EPOCH.element)
        return tag == any_(literal(sorted(self.tags), ARRAY(Text)))

    def refusal(self, row: str, version: int, epoch: str | None) -> PreconditionFailed | None:
        """Why `row`, like "User 1", is not changed in this version and epoch; None when it has one of the tags."""
        tag = None if epoch is None else row_tag(version, epoch)
        if tag in self.tags:
            return None
        if tag in self.weak:
            return PreconditionFailed(
                f'{row} is in version {version}, which If-Match names with a weak tag, W/"{tag}", and a weak one never '
                "matches: perhaps a proxy has weakened it."
            )
        epochs = {ours[1] for ours in map(OURS.fullmatch, self.tags) if ours}
        if epochs and epoch not in epochs:
            return PreconditionFailed(
                f"{row} is in version {version}, and If-Match names a version of another epoch: a store was restored "
                "or replaced since."
            )
        return PreconditionFailed(f"{row} is in version {version}, which If-Match does not name.")

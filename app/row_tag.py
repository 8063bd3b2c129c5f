"""The tag of a row: its version, and the epoch of that version.

    27-3f9c2a10b4d5e6f7     version 27, in the epoch whose token is 3f9c2a10b4d5e6f7

A version alone does not identify the content, because a restored database assigns the same versions again:

    R reads version 5                                       the database is restored, and W's change is version 5 again
    R has 5: R would get a 304, and R's change of version 5 would overwrite W's

The statement that reads or changes the row itself returns its epoch and checks the precondition, because what an
instance knows may be older. A dump contains the epochs of its time, so an epoch counts only with its history.

What can go wrong: from the moment a database is replaced until the next epoch begins, no row has a tag.
"""

import re
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Text, and_, any_, cast, false, func, literal, literal_column, not_, true
from sqlalchemy.dialects.postgresql import ARRAY

from app.errors import PreconditionFailed

# A history in the form of `coherence/epochs.py`. A standby has no insert position in the log, and asking for it raises.
EPOCH = literal_column(
    """(SELECT CASE WHEN pg_is_in_recovery() THEN NULL WHEN history = concat_ws('/',
  (pg_control_system()).system_identifier,
  ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  array_to_string(ARRAY['users'::regclass, 'products'::regclass, 'stock'::regclass, 'page_views'::regclass]::oid[], '-')
) THEN token END FROM epochs ORDER BY n DESC LIMIT 1)""",
    Text,
).label("epoch")
"""The token of the epoch in which a statement runs; NULL outside any epoch."""

OURS = re.compile(r"[1-9][0-9]*-([0-9a-f]{16})")


def row_tag(version: int, epoch: str) -> str:
    """Returns the tag of a row."""
    return f"{version}-{epoch}"


@dataclass(frozen=True, slots=True)
class Expected:
    """The preconditions of a request on its row (RFC 9110, section 13).

    If-Match         `there`: the row exists; `tags`: it has one of these, None: any. The `weak` ones never match
    If-None-Match    `absent`: the row does not exist; `others`: it has none of these, weak or not
    """

    tags: frozenset[str] | None = None
    weak: frozenset[str] = frozenset()
    there: bool = False
    others: frozenset[str] = frozenset()
    absent: bool = False

    @property
    def existing(self) -> bool:
        """Whether the row must exist."""
        return self.there or self.tags is not None

    def holds(self, version: ColumnElement[int]) -> ColumnElement[bool]:
        """Returns the condition, for a WHERE, that a row with this version fulfils the preconditions in the statement's
        epoch."""
        if self.absent or self.tags == frozenset():
            return false()
        tag = cast(version, Text).concat(literal("-", Text)).concat(EPOCH.element)
        as_expected: ColumnElement[bool] = true() if self.tags is None else _among(tag, self.tags)
        if self.others:
            # Outside any epoch the row has no tag, and so none of these.
            as_expected = and_(as_expected, not_(func.coalesce(_among(tag, self.others), false())))
        return as_expected

    def refusal(self, row: str, version: int, epoch: str | None) -> PreconditionFailed | None:
        """Returns why `row`, like "User 1", must not be changed in this version and epoch, or None if it may be."""
        tag = None if epoch is None else row_tag(version, epoch)
        if (mismatch := self.mismatch(f"{row} is in version {version}", tag)) is not None:
            return mismatch
        if self.absent:
            return PreconditionFailed(f"{row} is there, in version {version}, and If-None-Match: * wants none there.")
        if tag in self.others:
            return PreconditionFailed(f"{row} is in version {version}, which If-None-Match names.")
        return None

    def mismatch(self, so: str, tag: str | None) -> PreconditionFailed | None:
        """Returns why If-Match does not match this tag, or None if it does. `so` states the facts, like "User 1 is in
        version 8"."""
        if self.tags is None or tag in self.tags:
            return None
        if tag in self.weak:
            return PreconditionFailed(
                f'{so}, which If-Match names with a weak tag, W/"{tag}", and a weak one never matches. Probably a '
                "proxy has weakened it when it compressed the answer: read again with `Accept-Encoding: identity`, and "
                "send the tag of that answer; or let the proxy not compress."
            )
        epochs = {ours[1] for ours in map(OURS.fullmatch, self.tags) if ours}
        now = OURS.fullmatch(tag or "")
        if epochs and (tag is None or (now and now[1] not in epochs)):
            return PreconditionFailed(
                f"{so}, and If-Match names a version of another epoch: a store was restored or replaced since."
            )
        return PreconditionFailed(f"{so}, which If-Match does not name.")

    def known(self, tag: str | None) -> bool:
        """Whether If-None-Match names this tag, so that a reader has the content already. `*` matches every tag."""
        return self.absent or tag in self.others


def _among(tag: ColumnElement[str], tags: frozenset[str]) -> ColumnElement[bool]:
    return tag == any_(literal(sorted(tags), ARRAY(Text)))

"""Makes e-mail addresses unique whatever the case of their letters: Ada@example.com and ada@example.com are one."""

from alembic import op
from alembic.util import CommandError

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

MOST = 5
"""How many addresses the error names."""

# Rows that come between the query and the index would only fail with Postgres' own words.
LOCK = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"
COLLIDING = f"""
SELECT string_agg(format('%s (users %s)', address, ids), ', '), max(more) FROM (
  SELECT lower(email) AS address, string_agg(id::text, ', ' ORDER BY id) AS ids, count(*) OVER () - {MOST} AS more
  FROM users GROUP BY lower(email) HAVING count(*) > 1 ORDER BY min(id) LIMIT {MOST}
) AS colliding
"""


def upgrade() -> None:
    op.execute(LOCK)
    colliding, more = op.get_bind().exec_driver_sql(COLLIDING).one()
    if colliding:
        raise CommandError(
            f"Users have the same e-mail address but for the case of its letters: {colliding}"
            f"{f', and {more:,} more' if more > 0 else ''}. Change or delete all but one of each, and migrate again. "
            "Nothing was changed."
        )
    op.execute("ALTER TABLE users DROP CONSTRAINT uq_users_email")
    # The name stays: the version before this one recognizes it when an address is taken.
    op.execute("CREATE UNIQUE INDEX uq_users_email ON users (lower(email))")


def downgrade() -> None:
    op.execute("DROP INDEX uq_users_email")
    op.execute("ALTER TABLE users ADD CONSTRAINT uq_users_email UNIQUE (email)")

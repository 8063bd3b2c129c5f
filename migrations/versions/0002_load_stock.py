"""Adds the function that reads the stock of a SKU for the cache, under the lock that its writers hold."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Two functions, so that readers and writers cannot end up locking different things.
FUNCTIONS = """
CREATE FUNCTION stock_lock(sku text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT hashtextextended(sku, 4)
$$;

-- The lock first, and the row in a second statement, which sees what was committed before it began. In one statement
-- the snapshot would come first: a writer could commit and free the lock after it, and the old row would pass for new.
CREATE FUNCTION load_stock(wanted text, OUT unlocked boolean, OUT sku text, OUT quantity bigint, OUT version bigint,
  OUT updated_at timestamptz) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  unlocked := pg_try_advisory_xact_lock_shared(stock_lock(wanted));
  SELECT s.sku, s.quantity, s.version, s.updated_at INTO sku, quantity, version, updated_at
    FROM stock s WHERE s.sku = wanted;
END $$;
"""


def upgrade() -> None:
    for statement in FUNCTIONS.split("\n\n"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION load_stock(text)")
    op.execute("DROP FUNCTION stock_lock(text)")

"""Adds the ledger's floor, and its hours in the order in which they were opened: no clock alone drops a partition."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FUNCTIONS = """
-- Makes the partition of an hour, if there is none, and answers whether it is there: not when the hour is below the
-- floor. It is made first, and then attached: to create it as a partition would lock the whole ledger, and wait for
-- everybody who reads it, a dump for example. One that somebody has detached is attached again: an empty one in its
-- place would know of nothing that was counted.
CREATE FUNCTION open_ledger_hour(wanted timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  name text := to_char(wanted AT TIME ZONE 'UTC', '"applied_"YYYYMMDDHH24');
BEGIN
  -- Before it looks: else an hour could be dropped between the look at the floor and the making of a new partition.
  PERFORM pg_advisory_xact_lock(hashtext('applied'));
  IF wanted < (SELECT hour FROM ledger_floor) THEN
    RETURN false;
  END IF;
  IF to_regclass(name) IS NULL THEN
    EXECUTE format('CREATE TABLE %I (LIKE applied INCLUDING ALL)', name);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'applied'::regclass AND inhrelid = to_regclass(name)) THEN
    EXECUTE format('ALTER TABLE applied ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
      name, wanted, wanted + interval '1 hour');
  END IF;
  INSERT INTO ledger_hours (hour) VALUES (wanted) ON CONFLICT DO NOTHING;
  RETURN true;
END $$;

-- Drops the partition of an hour, and raises the floor above it: in one transaction, or a batch that it had could be
-- counted again in a new one.
CREATE FUNCTION drop_ledger_hour(doomed timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('applied'));
  UPDATE ledger_floor SET hour = doomed + interval '1 hour' WHERE hour <= doomed;
  DELETE FROM ledger_hours WHERE hour = doomed;
  EXECUTE format('DROP TABLE IF EXISTS %I', to_char(doomed AT TIME ZONE 'UTC', '"applied_"YYYYMMDDHH24'));
END $$;
"""

# The existing partitions were opened one after the other, each in its hour.
ENTER = """
INSERT INTO ledger_hours (hour, created_at)
SELECT hour, hour FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid, make_timestamptz(
  substr(relname, 9, 4)::int, substr(relname, 13, 2)::int, substr(relname, 15, 2)::int, substr(relname, 17, 2)::int,
  0, 0, 'UTC') AS hour
WHERE inhparent = 'applied'::regclass ORDER BY hour
"""

# No batch is older than 1970. It was already unknown whether a batch older than the oldest partition was counted.
FLOOR = "INSERT INTO ledger_floor (hour) SELECT coalesce(min(hour), '1970-01-01 00:00+00') FROM ledger_hours"

# Batches that became dead letters were recorded under the hour of that event. From now on they are looked up here.
SET_ASIDE = "INSERT INTO set_aside SELECT DISTINCT batch FROM dead_letters WHERE batch IS NOT NULL"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "ledger_floor",
        sa.Column("one", sa.Boolean, server_default=sa.true(), primary_key=True),
        sa.Column("hour", time, nullable=False),
        sa.CheckConstraint("one", name="one_row"),
    )
    op.create_table(
        "ledger_hours",
        sa.Column("hour", time, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
    )
    op.create_table("set_aside", sa.Column("batch", sa.Text(collation="C"), primary_key=True))
    for statement in (*FUNCTIONS.split("\n\n"), ENTER, FLOOR, SET_ASIDE):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION drop_ledger_hour(timestamptz)")
    op.execute("DROP FUNCTION open_ledger_hour(timestamptz)")
    for table in ("set_aside", "ledger_hours", "ledger_floor"):
        op.drop_table(table)

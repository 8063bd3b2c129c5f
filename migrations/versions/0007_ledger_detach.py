"""Adds the function that finishes a half-done DETACH of a ledger partition, so that it can be attached again."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# DETACH … CONCURRENTLY takes two transactions. If it is interrupted between them, the partition is neither attached nor
# detached: nothing can be written to it, and it cannot be attached. So the function finishes the DETACH.
FUNCTION = """
CREATE FUNCTION finish_ledger_detach(wanted timestamptz) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  half text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('applied'));
  SELECT inhrelid::regclass::text INTO half FROM pg_inherits
    WHERE inhparent = 'applied'::regclass AND inhdetachpending
    AND inhrelid = to_regclass(to_char(wanted AT TIME ZONE 'UTC', '"applied_"YYYYMMDDHH24'));
  IF half IS NULL THEN
    RETURN false;
  END IF;
  EXECUTE 'ALTER TABLE applied DETACH PARTITION ' || half || ' FINALIZE';
  RETURN true;
END $$
"""
PINNED = """
DO $$ BEGIN
  EXECUTE format('ALTER FUNCTION finish_ledger_detach(timestamptz) SET search_path = %I, pg_temp', current_schema());
END $$
"""


def upgrade() -> None:
    op.execute(FUNCTION)
    op.execute(PINNED)


def downgrade() -> None:
    op.execute("DROP FUNCTION finish_ledger_detach(timestamptz)")

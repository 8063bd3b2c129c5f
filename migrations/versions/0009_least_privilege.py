"""Lets a role that owns nothing run the service: the ledger's partitions are made and dropped by the owner's functions.

A role needs EXECUTE on them, which no longer everybody has; `fourways grants postgres` prints what it needs in all.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

LEDGER = ("open_ledger_hour(timestamptz)", "drop_ledger_hour(timestamptz)")
DEFINERS = (*LEDGER, "finish_ledger_detach(timestamptz)", "set_version()", "record_change()")
"""The functions that run with their owner's rights. Calling a trigger function needs no right, only making a trigger
with it does: so nobody else can write to the outbox as the owner."""

# Whatever search_path the caller has, the functions find these tables and no temporary ones.
PINNED = """
DO $$ BEGIN
  EXECUTE format('ALTER FUNCTION {function} SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END $$
"""

# A role that was permitted by hand to write to the ledger could call the functions, as everybody could. It still can.
KEPT = """
DO $$
DECLARE
  writer text;
BEGIN
  FOR writer IN
    SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END
    FROM pg_class, aclexplode(relacl) AS acl
    WHERE pg_class.oid = 'applied'::regclass AND acl.privilege_type = 'INSERT' AND acl.grantee <> relowner
  LOOP
    EXECUTE 'GRANT EXECUTE ON FUNCTION open_ledger_hour, drop_ledger_hour, finish_ledger_detach TO ' || writer;
  END LOOP;
END $$
"""

# What runs with its owner's rights opens hours and nothing else: neither infinity, nor another time, whose partition
# would overlap that of the hour.
WHOLE = "isfinite(hour) AND hour = date_trunc('hour', hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"


def upgrade() -> None:
    for function in LEDGER:
        op.execute(PINNED.format(function=function))
    for function in DEFINERS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
    op.execute(KEPT)
    op.execute(f"ALTER TABLE ledger_hours ADD CONSTRAINT ck_ledger_hours_whole_hour CHECK ({WHOLE})")


def downgrade() -> None:
    op.execute("ALTER TABLE ledger_hours DROP CONSTRAINT ck_ledger_hours_whole_hour")
    for function in DEFINERS:
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
    for function in LEDGER:
        op.execute(f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path")

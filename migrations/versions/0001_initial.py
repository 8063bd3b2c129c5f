"""Creates users, products, stock, page views, the ledger, the dead letters, the outbox, and their triggers."""

import sqlalchemy as sa
from alembic import op

from app.coherence.triggers import cacheable

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VERSIONED = {"users": "id", "products": "sku", "stock": "sku"}
"""The tables that are read through a cache, and their keys."""

FUNCTIONS = """
-- One sequence for all rows: a version says which of two states of a row is newer. CACHE 1, or each session would draw
-- a range of its own, and a later write could get the lower number.
CREATE SEQUENCE row_version AS bigint CACHE 1;

CREATE FUNCTION set_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    -- A DELETE takes a version, too: its outbox row must be newer than whatever is cached.
    PERFORM nextval('row_version');
    RETURN OLD;
  END IF;
  NEW.version := nextval('row_version');
  NEW.updated_at := now();
  RETURN NEW;
END $$;

-- The argument is the name of the key column.
CREATE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  old_key text := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) ->> TG_ARGV[0] END;
  new_key text := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) ->> TG_ARGV[0] END;
  version bigint := CASE WHEN TG_OP = 'DELETE' THEN currval('row_version') ELSE NEW.version END;
BEGIN
  IF new_key IS NOT NULL THEN
    INSERT INTO outbox (resource, key, version) VALUES (TG_TABLE_NAME, new_key, version);
  END IF;
  -- When the key itself changes, both keys do: nothing is left under the old one.
  IF old_key IS NOT NULL AND old_key IS DISTINCT FROM new_key THEN
    INSERT INTO outbox (resource, key, version) VALUES (TG_TABLE_NAME, old_key, version);
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of % is refused: it would not tell the caches which rows are gone.', TG_TABLE_NAME
    USING HINT = 'Use DELETE.';
END $$;
"""

# Whatever rights and search_path a writer has, this sequence numbers the change, and this outbox gets it. A temporary
# table of the same name must not get it, so temporary tables come last.
PINNED = """
DO $$ BEGIN
  EXECUTE format('ALTER FUNCTION {function}() SET search_path = %I, pg_temp', current_schema());
END $$
"""


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    key = sa.Text(collation="C")
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, sa.Identity(start=1001), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", time, server_default=sa.func.now(), nullable=False),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        sa.CheckConstraint("char_length(email) BETWEEN 3 AND 254", name="email_length"),
    )
    op.create_table(
        "products",
        sa.Column("sku", key, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", time, server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        sa.CheckConstraint("char_length(description) <= 4000", name="description_length"),
        sa.CheckConstraint(r"price ~ '^[0-9]{1,10}(\.[0-9]{1,4})?$'", name="price_format"),
    )
    op.create_table(
        "stock",
        sa.Column("sku", key, primary_key=True),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_at", time, server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("quantity BETWEEN 0 AND 9007199254740991", name="quantity_range"),
        sa.CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
    )
    op.create_table(
        "stock_adjustments",
        sa.Column("sku", key, primary_key=True),
        sa.Column("key", key, primary_key=True),
        sa.Column("delta", sa.BigInteger, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_at", time, nullable=False),
    )
    op.create_table(
        "page_views",
        sa.Column("page", key, primary_key=True),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.CheckConstraint("octet_length(page) BETWEEN 1 AND 2048", name="page_length"),
        sa.CheckConstraint("views >= 0", name="views_range"),
    )
    op.create_table(
        "applied",
        sa.Column("hour", time, primary_key=True),
        sa.Column("batch", key, primary_key=True),
        postgresql_partition_by="RANGE (hour)",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("page", sa.Text),
        sa.Column("delta", sa.BigInteger),
        sa.Column("batch", sa.Text),
        sa.Column("entry", sa.LargeBinary),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("done_at", time),
    )
    op.create_index("ix_outbox_undone", "outbox", ["id"], postgresql_where=sa.text("done_at IS NULL"))
    op.create_index("ix_outbox_done_at", "outbox", ["done_at"], postgresql_where=sa.text("done_at IS NOT NULL"))
    for statement in FUNCTIONS.split("\n\n"):
        op.execute(statement)
    for function in ("set_version", "record_change"):
        op.execute(PINNED.format(function=function))
    for table, column in VERSIONED.items():
        for statement in cacheable(table, column):
            op.execute(statement)


def downgrade() -> None:
    for table in ["outbox", "dead_letters", "applied", "page_views", "stock_adjustments", *reversed(VERSIONED)]:
        op.drop_table(table)
    for function in ("refuse_truncate", "record_change", "set_version"):
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP SEQUENCE row_version")

"""Adds the function that counts a batch page by page when it is refused as a whole."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Each page has its own block, so a page that the database refuses is rolled back alone. Any other error, such as a
# deadlock or a lost connection, is no page's fault and rolls back everything.
SALVAGE = """
CREATE FUNCTION salvage_views(pages text[], deltas bigint[])
RETURNS TABLE (refused_page text, refused_delta bigint, reason text) LANGUAGE plpgsql AS $$
BEGIN
  FOR refused_page, refused_delta IN
    SELECT page, delta FROM unnest(pages, deltas) AS each (page, delta) ORDER BY page
  LOOP
    BEGIN
      INSERT INTO page_views AS counted (page, views) VALUES (refused_page, refused_delta)
      ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
      reason := SQLERRM;
      RETURN NEXT;
    END;
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(SALVAGE)


def downgrade() -> None:
    op.execute("DROP FUNCTION salvage_views(text[], bigint[])")

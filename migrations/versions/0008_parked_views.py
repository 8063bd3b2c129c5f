"""Adds the table of views that are counted and wait for their page's row, which is locked or too slow to change."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "parked_views",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("page", sa.Text(collation="C"), nullable=False),
        sa.Column("delta", sa.BigInteger(), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("parked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("delta > 0", name="delta_range"),
    )
    op.create_index("ix_parked_views_page", "parked_views", ["page"])


def downgrade() -> None:
    # Parked views are counted, and dropping the table would lose them. The lock keeps processes from parking and
    # settling meanwhile:
    #   a process has settled 5, and not committed yet      they are settled here, too
    op.execute("LOCK TABLE parked_views IN ACCESS EXCLUSIVE MODE")
    op.execute("""
        INSERT INTO page_views AS counted (page, views)
        SELECT page, sum(delta)::bigint FROM parked_views GROUP BY page ORDER BY page
        ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
    """)
    op.drop_table("parked_views")

"""Adds the identity of this database, and the epochs, which say which Redis is trusted with it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("deployment", sa.Column("id", sa.Uuid, primary_key=True))
    op.execute("INSERT INTO deployment (id) VALUES (gen_random_uuid())")
    op.create_table(
        "epochs",
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("history", sa.Text, nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("claimed_run", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("epochs")
    op.drop_table("deployment")

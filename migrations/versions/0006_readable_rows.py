"""What SQL may write is what the application can read: times of the years 1 to 9999, ids from 1, skus that a URL names.

Where there are rows, the rules are NOT VALID: they hold for each row that is written from here on, and none that is
there is looked at, so that the upgrade neither fails by an old row nor holds up others while it reads a large table.
`ALTER TABLE … VALIDATE CONSTRAINT` tells whether there is one.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIMES = {
    "users": ("created_at", "updated_at"),
    "products": ("created_at", "updated_at"),
    "stock": ("updated_at",),
    "stock_adjustments": ("updated_at",),
    "dead_letters": ("created_at",),
}
TIME = "{0} BETWEEN timestamptz '0001-01-01 00:00:00+00' AND timestamptz '9999-12-31 23:59:59.999999+00'"

# As the API has it, but for the blanks and control characters beyond ASCII, which depend on the database's encoding.
SKU = "sku !~ '^[[:space:]]|[[:space:]]$|[[:cntrl:]]' AND sku NOT IN ('.', '..')"

RULES = {
    **{(table, f"{name}_range"): TIME.format(name) for table, names in TIMES.items() for name in names},
    ("users", "id_range"): "id >= 1",
    ("products", "sku_form"): SKU,
    ("stock", "sku_form"): SKU,
    # More cannot be added up exactly in Redis, nor read exactly by every JSON parser.
    ("page_views", "views_exact"): "views <= 9007199254740991",
}


def upgrade() -> None:
    for (table, name), rule in RULES.items():
        made = f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{name} CHECK ({rule})"
        op.execute(
            f"DO $do$ BEGIN IF EXISTS (SELECT FROM {table}) THEN {made} NOT VALID; ELSE {made}; END IF; END $do$"
        )


def downgrade() -> None:
    for table, name in RULES:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{name}")

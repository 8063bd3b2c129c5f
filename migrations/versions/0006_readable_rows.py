"""Lets SQL write only what the application can read: times in the years 1 to 9999, ids from 1, skus that URLs can name.

In a table with rows the constraints are NOT VALID: they hold for each row written from now on, and existing rows are
not checked. So the upgrade neither fails because of an old row nor blocks others while it reads a large table.
`ALTER TABLE … VALIDATE CONSTRAINT` shows whether there is such a row.
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

# As in the API, except for whitespace and control characters beyond ASCII, which depend on the database's encoding.
SKU = "sku !~ '^[[:space:]]|[[:space:]]$|[[:cntrl:]]' AND sku NOT IN ('.', '..')"

RULES = {
    **{(table, f"{name}_range"): TIME.format(name) for table, names in TIMES.items() for name in names},
    ("users", "id_range"): "id >= 1",
    ("products", "sku_form"): SKU,
    ("stock", "sku_form"): SKU,
    # Redis cannot add larger numbers exactly, nor can every JSON parser read them exactly.
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

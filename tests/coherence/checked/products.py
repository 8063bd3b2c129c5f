"""Products: read-through."""

from tests.coherence.checked import Checked

CHECKED = Checked(
    name="products",
    insert="INSERT INTO products (sku, name, price) VALUES ('KETTLE', 'old', '1') RETURNING sku",
    key="sku",
    field="name",
)

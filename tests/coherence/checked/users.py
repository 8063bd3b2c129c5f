"""Users: cache-aside."""

from tests.coherence.checked import Checked

CHECKED = Checked(
    name="users",
    insert="INSERT INTO users (name, email) VALUES ('old', 'old@example.com') RETURNING id",
    key="id",
    field="name",
)

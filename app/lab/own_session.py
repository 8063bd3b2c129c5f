"""A session of Postgres that the lab has for itself.

Its lock of a schema and its search path live as long as the session. A pooler would give both to somebody else: another
application would look for its tables in the lab's schema.
"""

from datetime import timedelta

from app.connection import Connection, connect
from app.lab.comparison.lab_error import LabError


async def own_session(database_url: str, timeout: timedelta) -> Connection:
    """Connects. Raises LabError where a pooler is in between."""
    connection = await connect(database_url, timeout)
    if connection.limits is not None:
        await connection.close()
        raise LabError("The lab needs sessions of its own: name Postgres itself in DATABASE_URL, and not a pooler.")
    return connection

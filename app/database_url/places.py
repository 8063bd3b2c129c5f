"""The hosts of a Postgres and their ports, in the order in which they are tried.

What can go wrong: `ValueError`, for a host or a port that cannot exist, or lists of different lengths.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from app.database_url.parameter import Parameter, Parameters
from app.database_url.uri import is_port

PORT = 5432
SOCKETS = ("/var/run/postgresql", "/run/postgresql")
"""Where the packages of Linux distributions have the socket, and what their libpq takes by default."""
OTHERWISE = "/tmp"
"""Where Postgres has it otherwise."""


@dataclass(frozen=True, slots=True)
class Place:
    """A host, or the directory of a unix socket, with a port."""

    host: str
    port: int

    @property
    def is_socket(self) -> bool:
        """Whether this is a directory."""
        return self.host.startswith("/")


def read_places(parameters: Parameters) -> tuple[Place, ...]:
    """Returns the places that the parameters name. Without a host, it is a unix socket: asyncpg would also try TCP, and
    ask whatever listens there. Raises ValueError."""
    named = parameters.get("host")
    if address := parameters.get("hostaddr"):
        if named:
            raise address.refused(
                "asyncpg cannot connect to one address and verify the name of another; leave host out"
            )
        named = address
    hosts = [_host(named, host) for host in named.value.split(",")] if named else [_default()]
    ports = parameters.get("port")
    numbers = [_port(ports, port) for port in ports.value.split(",")] if ports else [PORT]
    if ports and len(numbers) not in (1, len(hosts)):
        raise ports.refused(f"{len(numbers)} ports are for {len(hosts)} host{'' if len(hosts) == 1 else 's'}")
    each = numbers if len(numbers) == len(hosts) else numbers * len(hosts)
    return tuple(Place(host, port) for host, port in zip(hosts, each, strict=True))


def _default() -> str:
    return next((directory for directory in SOCKETS if Path(directory).is_dir()), OTHERWISE)


def _host(named: Parameter, host: str) -> str:
    if host.startswith("/") or re.fullmatch(r"[\w.-]+", host):
        return host
    try:
        ip_address(host)
    except ValueError:
        raise named.refused("it must be a name, an address, or the directory of a socket, for each host") from None
    return host


def _port(named: Parameter, port: str) -> int:
    if not port:
        return PORT
    if not is_port(port):
        raise named.refused("it must be a number from 1 to 65535")
    return int(port)

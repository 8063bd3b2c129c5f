"""Free ports for the servers of tests: no other process that runs these tests is given the same one, and no client.

Who asks the system for a free port, and closes it again, may lose it before the server listens: to another test that
asks, or to a client of anything, whose port is from the same range. This one is the caller's for as long as it runs.
"""

import socket
from collections.abc import Iterator

FIRST, LAST = 11_000, 22_000
"""Below the ports that Linux gives to clients, even with `BUS` added."""
BUS = 10_000
"""So far above its port, a node of a Redis Cluster listens for other nodes."""
BLOCK = 100
"""A process claims so many ports at once."""


def free_port() -> int:
    """Returns a port on which nobody listens, nor `BUS` above it. It returns each port only once."""
    return next(_ports)


def _free_ports() -> Iterator[int]:
    claims = []
    for first in range(FIRST, LAST, BLOCK):
        claim = socket.socket(socket.AF_UNIX)
        try:
            # Only one socket can have this name, and the name is free again when its process ends, however it does.
            claim.bind(f"\0fourways-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        claims.append(claim)
        yield from filter(_is_free, range(first, first + BLOCK))
    raise AssertionError(f"No port from {FIRST} to {LAST} is free.")


def _is_free(port: int) -> bool:
    """Whether nobody listens there. A server of a process that was killed still may."""
    try:
        for each in (port, port + BUS):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", each))
    except OSError:
        return False
    return True


_ports = _free_ports()

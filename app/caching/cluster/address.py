"""Where a node of a cluster listens.

What can go wrong: a node does not know its own name, and answers an empty one (`resolved`).
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

NAMELESS = ("", "?")
"""What a node answers in place of a host that it does not know, or may not tell."""


class Address(NamedTuple):
    """A host, and the port of its clients."""

    host: str
    port: int

    def resolved(self, asked: "Address") -> "Address":
        """Returns the address, as the node at `asked` has told it: without a host, it is the host of that node."""
        return self._replace(host=asked.host) if self.host in NAMELESS else self

    def url(self, parameters: Mapping[str, str], *, tls: bool) -> str:
        """Returns the URL of this node alone, with the login and other parameters that all nodes share."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"{'rediss' if tls else 'redis'}://{host}:{self.port}{query}"

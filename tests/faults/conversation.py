"""What a wire needs to know of a protocol: where messages end, and which answer belongs to which command."""

from collections.abc import Iterable
from typing import Protocol

from tests.faults.message import Message


class Conversation(Protocol):
    """The messages of one connection."""

    def asked(self, data: bytes) -> Iterable[Message]:
        """Returns the messages that these bytes of the client complete; an incomplete message is kept."""

    def answered(self, data: bytes) -> Iterable[Message]:
        """Returns the same for bytes of the server."""

"""What a wire needs to know of a protocol: where messages end, and which answer is whose."""

from collections.abc import Iterable
from typing import Protocol

from tests.faults.message import Message


class Conversation(Protocol):
    """What is said on one connection."""

    def asked(self, data: bytes) -> Iterable[Message]:
        """The messages that are complete with these bytes of the client; what is not complete is kept."""

    def answered(self, data: bytes) -> Iterable[Message]:
        """The same for bytes of the server."""

"""A piece of what passes a wire, unchanged, and what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes that are passed on together."""

    raw: bytes
    texts: Sequence[str] = ()
    """What patterns are matched with: the commands or statements that this asks for or, on the way back, answers."""
    counted: str | None = None
    """The command or statement that runs once this has arrived."""


HANG_UP = Message(b"")
"""Queued after everything that a peer sent before it closed the connection."""

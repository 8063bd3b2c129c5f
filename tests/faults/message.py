"""A piece of what passes a wire, as it came, and what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes that are passed on together."""

    raw: bytes
    texts: Sequence[str] = ()
    """What patterns look at: the command or statement that this asks for or, on the way back, that it answers."""
    counted: str | None = None
    """The command or statement that runs once this has arrived."""


HANG_UP = Message(b"")
"""Stands in line behind all that somebody said before it hung up."""

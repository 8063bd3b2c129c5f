"""A command that belongs to one slot, ready to be sent to whichever node owns it.

It is packed when it is made: what cannot be packed fails there, before anything is sent.

What can go wrong: the keys of a script belong to several slots. Redis refuses it (CROSSSLOT): give them one hash tag.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple, cast

import hiredis

from ..scripts import Script, Source
from .slot_map import slot_of

Word = str | bytes | int | float
Text = str | bytes | memoryview
AT_ONCE = timedelta(0)


class Call(NamedTuple):
    """A command in Redis' protocol, and its slot. `source` is the script that it names by its digest. A node may wait
    for `waits` before it answers a call that is sent alone."""

    slot: int
    packed: bytes
    words: tuple[Word | Text, ...]
    source: Text | None = None
    waits: timedelta = AT_ONCE

    @classmethod
    def of(cls, name: str, *words: Word) -> "Call":
        """A command about one name."""
        return cls(slot_of(name), packed(words), words)

    @classmethod
    def get(cls, name: str) -> "Call":
        """Reads the value under a name."""
        return cls.of(name, "GET", name)

    @classmethod
    def gets(cls, names: Iterable[str]) -> list["Call"]:
        """Reads the values under many names. One call is made for each hit: by `get`, it would take three times as
        long."""
        calls: list[Call] = []
        for name in names:
            raw = name.encode()
            command = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(raw), raw)
            calls.append(tuple.__new__(cls, (slot_of(raw), command, ("GET", name), None, AT_ONCE)))
        return calls

    @classmethod
    def run(cls, script: Script | Source, keys: Sequence[str], args: Sequence[Word] = ()) -> "Call":
        """Runs a script. Its keys must share a slot."""
        words = ("EVALSHA", script.sha, len(keys), *keys, *args)
        return cls(slot_of(keys[0]), packed(words), words, script.script)

    def with_source(self) -> "Call":
        """Returns the call with the script itself, for a node that has forgotten it."""
        assert self.source is not None  # Nothing else is forgotten.
        words = ("EVAL", self.source, *self.words[2:])
        return Call(self.slot, packed(words), words)


def packed(words: tuple[Word | Text, ...]) -> bytes:
    """Returns a command in Redis' protocol."""
    return cast("bytes", hiredis.pack_command(words))  # type: ignore[arg-type]  # Its stub knows one argument.

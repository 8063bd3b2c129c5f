"""The header of a value, and which values may be believed by it: those of this model, this life, and undamaged.

    "<schema> <version> <stored at> <fresh for> <load cost> <CRC-32> <JSON>", times in Redis' ms

The schema is a hash of the model's own, and of the life of Redis: what another version of the application wrote is a
miss, and is overwritten. So is what was kept in another epoch, or by another run, and what lacks its checksum: it would
be sent as it is stored.
"""

import hashlib
import json
import zlib
from typing import Any, Generic

from .breaker import Breaker
from .reading import Outcome, Reading, V

FORMAT = "3"
"""Changes with the header: what was written with another one is a miss."""


class Stamp(Generic[V]):
    """The header of values of one type, in the life of Redis that `breaker` knows."""

    def __init__(self, type_: type[V], breaker: Breaker) -> None:
        """Raises TypeError for a type without a version: nothing would say which of two values is the newer one."""
        if "version" not in getattr(type_, "model_fields", {}) and not hasattr(type_, "version"):
            raise TypeError(
                f"{type_.__name__} has no field `version`. Give it an int that the database raises with each change of "
                "the row."
            )
        field = getattr(type_, "model_fields", {}).get("version")
        if field is not None and field.annotation is not int:
            raise TypeError(f"The version of {type_.__name__} is {field.annotation}: it must be an int.")
        self._type, self._breaker = type_, breaker
        schema = json.dumps(_shape(type_.model_json_schema()), sort_keys=True)
        self._schema_of_all_lives = hashlib.sha256((FORMAT + schema).encode())
        self._life: str | None = ""  # Nobody's.
        self._epoch: str | None = None
        self._word = b""

    @property
    def word(self) -> bytes:
        """The first word of the header. It is of one life of Redis: what another one has kept may have been invalidated
        since, and brought back by a restart, or was loaded from a database that went back."""
        life = self._breaker.life
        if life != self._life:
            whole = self._schema_of_all_lives.copy()
            whole.update(str(life).encode())
            self._life, self._word = life, whole.hexdigest()[:8].encode()
            self._epoch = self._breaker.epoch
        return self._word

    @property
    def life_word(self) -> str:
        """The first word of a floor: of this life, in whatever version of the application."""
        return hashlib.sha256(str(self._breaker.life).encode()).hexdigest()[:8]

    def read(self, raw: bytes, outcome: Outcome, verified: bool, word: bytes, now: float) -> Reading[V] | None:
        """What stands there, under the present `word`; None when it is not to be believed. `now` is Redis' time in
        ms."""
        try:
            stamped, version, stored_at, fresh_for, cost, checksum, payload = raw.split(b" ", 6)
            if stamped != word or int(checksum, 16) != zlib.crc32(payload):
                return None
            row, age = int(version), now - int(stored_at)
            ttl, took = int(fresh_for) - age, int(cost)
        except ValueError:
            return None
        if age < 0:  # Our copy of Redis' clock is off by what an answer took.
            age = 0.0
        # The word has just been made, or found to be the present one: the entry is of that epoch.
        return Reading(payload if row else None, row, outcome, self._type, age, ttl, took, False, verified, self._epoch)


def checked(payload: bytes) -> bytes:
    """The end of an entry: the checksum, and what it is of."""
    return b"%08x %b" % (zlib.crc32(payload), payload)


def _shape(schema: Any) -> Any:
    """A JSON schema without what is only said about it: a better description must not make all entries foreign."""
    if isinstance(schema, dict):
        said = ("title", "description", "examples", "default")
        return {key: _shape(value) for key, value in schema.items() if key not in said or isinstance(value, dict)}
    return [_shape(value) for value in schema] if isinstance(schema, list) else schema

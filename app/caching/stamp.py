"""The header of a value, which shows whether to believe it: it must be of this model and this life, and undamaged.

    "<schema> <version> <stored at> <fresh for> <load cost> <CRC-32> <JSON>", times in Redis' ms

The schema word is a hash of the model's schema and the life of Redis. A value that another version of the application
wrote is a miss, and is overwritten. So is a value of another epoch or another run, and a value whose checksum is wrong:
the payload is sent to clients as it is stored.
"""

import hashlib
import json
import zlib
from typing import Any, Generic

from .identity import Identity
from .reading import Outcome, Reading, V

FORMAT = "3"
"""Version of the header format. Values written with another one are misses."""


class Stamp(Generic[V]):
    """The header of values of one type, in the life of Redis that `identity` knows."""

    def __init__(self, type_: type[V], identity: Identity) -> None:
        """Raises TypeError for a type without a version: nothing would show which of two values is newer."""
        if not hasattr(type_, "model_json_schema"):
            raise TypeError(
                f"{getattr(type_, '__name__', type_)} must be a pydantic BaseModel: a value is stored as JSON."
            )
        if "version" not in getattr(type_, "model_fields", {}) and not hasattr(type_, "version"):
            raise TypeError(
                f"{type_.__name__} has no field `version`. Give it an int that the database raises with each change of "
                "the row."
            )
        field = getattr(type_, "model_fields", {}).get("version")
        if field is not None and field.annotation is not int:
            raise TypeError(f"The version of {type_.__name__} is {field.annotation}: it must be an int.")
        self._type, self._identity = type_, identity
        schema = json.dumps(_shape(type_.model_json_schema()), sort_keys=True)
        self._schema_of_all_lives = hashlib.sha256((FORMAT + schema).encode())
        self._life: str | None = ""  # No life has this name.
        self._epoch: str | None = None
        self._word = b""

    @property
    def word(self) -> bytes:
        """The first word of the header, for the present life of Redis. A value of another life may have been
        invalidated since and brought back by a restart, or loaded from a database that went back."""
        life = self._identity.life
        if life != self._life:
            whole = self._schema_of_all_lives.copy()
            whole.update(str(life).encode())
            self._life, self._word = life, whole.hexdigest()[:8].encode()
            self._epoch = self._identity.epoch
        return self._word

    @property
    def life_word(self) -> str:
        """The first word of a floor, for the present life and the same in all versions of the application."""
        return hashlib.sha256(str(self._identity.life).encode()).hexdigest()[:8]

    def read(self, raw: bytes, outcome: Outcome, verified: bool, word: bytes, now: float) -> Reading[V] | None:
        """Returns a stored value as a reading, None if it must not be believed. `word` is the present first word, and
        `now` is Redis' time in ms."""
        try:
            stamped, version, stored_at, fresh_for, cost, checksum, payload = raw.split(b" ", 6)
            if stamped != word or int(checksum, 16) != zlib.crc32(payload):
                return None
            row, age = int(version), now - int(stored_at)
            ttl, took = int(fresh_for) - age, int(cost)
        except ValueError:
            return None
        if age < 0:  # Our copy of Redis' clock is off by the time that an answer took.
            age = 0.0
        # The caller has just read `word`, so the entry is of the epoch that belongs to it.
        return Reading(payload if row else None, row, outcome, self._type, age, ttl, took, False, verified, self._epoch)


def checked(payload: bytes) -> bytes:
    """Returns the end of an entry: the checksum of the payload, and the payload."""
    return b"%08x %b" % (zlib.crc32(payload), payload)


def _shape(schema: Any) -> Any:
    """Returns a JSON schema without its descriptive parts: a better description must not make all entries foreign."""
    if isinstance(schema, dict):
        said = ("title", "description", "examples", "default")
        return {key: _shape(value) for key, value in schema.items() if key not in said or isinstance(value, dict)}
    return [_shape(value) for value in schema] if isinstance(schema, list) else schema

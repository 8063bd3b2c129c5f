"""The id of a batch: a ULID, which begins with the time when it was made, and is random in the rest.

From https://github.com/ulid/spec.
"""

import secrets
from datetime import UTC, datetime

YEAR_9999 = 253_402_300_799_999
"""Its last millisecond since the epoch."""
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(now: float) -> str:
    """A new id, of the time `now` in milliseconds since the epoch."""
    value = int(now) << 80 | secrets.randbits(80)
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def ulid_time(batch: str) -> int:
    """When an id was made, in milliseconds since the epoch. Raises ValueError when it is none."""
    if len(batch) != 26 or any(letter not in ALPHABET for letter in batch):
        raise ValueError(f"{batch!r} is no ULID.")
    time = 0
    for letter in batch[:10]:
        time = time << 5 | ALPHABET.index(letter)
    if time > YEAR_9999:
        raise ValueError(f"{batch!r} is of no time that can be.")
    return time


def made_at(batch: str) -> datetime:
    """When an id was made. Raises ValueError when it is none."""
    return datetime.fromtimestamp(ulid_time(batch) / 1000, UTC)

"""The id of a batch: a ULID, which begins with its creation time and continues with random bits.

From https://github.com/ulid/spec.
"""

import secrets
from datetime import UTC, datetime

YEAR_9999 = 253_402_300_799_999
"""The last millisecond of that year, counted from the epoch."""
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(now: float) -> str:
    """Returns a new id for the time `now`, in milliseconds since the epoch."""
    value = int(now) << 80 | secrets.randbits(80)
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def ulid_time(batch: str) -> int:
    """Returns when an id was made, in milliseconds since the epoch. Raises ValueError if it is not a ULID."""
    if len(batch) != 26 or any(letter not in ALPHABET for letter in batch):
        raise ValueError(f"{batch!r} is not a ULID.")
    time = 0
    for letter in batch[:10]:
        time = time << 5 | ALPHABET.index(letter)
    if time > YEAR_9999:
        raise ValueError(f"{batch!r} has an impossible time.")
    return time


def made_at(batch: str) -> datetime:
    """Returns when an id was made. Raises ValueError if it is not a ULID."""
    return datetime.fromtimestamp(ulid_time(batch) / 1000, UTC)

"""Where the explorer starts: all instances believe the first epoch, and Redis holds the value."""

from tests.coherence.epochs.reach import TRUST
from tests.coherence.epochs.world import Instance, Postgres, Redis, World

ABSENT = Postgres(0, 0, -1, 0, 0, (), (), 0)


def world(
    faults: tuple[str, ...], *, instances: int = 2, writes: tuple[int, ...] = (), reads: tuple[int, ...] = ()
) -> World:
    beats = (0,) * instances
    first = Redis(1, 1, 0, 0, -1, beats, 0, 1, 0)
    second = Redis(2, 0, -1, 0, -1, beats, -1, 0, 0)
    postgres = Postgres(1, 1, 0, 0, 0, (0,), (), 0)
    one = Instance(0, (0,), 1, 0, (0,), 1, 1, 0, TRUST, 0, shown=0, looked=TRUST)
    return World((first, second), (postgres, ABSENT, ABSENT), (one,) * instances, faults, writes, reads)

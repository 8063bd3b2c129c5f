"""Which Redis this process talks to. It need not be the one of a moment ago.

    run      one life of a Redis server: each new connection asks for it (`connection.py`)
    epoch    one run of Redis together with one history of the database. A relay finds it (`record.py`)
    life     a word for both. Cached values belong to one life, and values of any other are misses

A Redis that restarts may have lost its last second, and a promoted replica may lack more: invalidated values come back.
A name may start to resolve to another Redis while connections to the old one live on. So a new run ends the trust
before its connection sends a command, and the pool drops connections to any other run.

What can go wrong: a Redis does not report its run. Then a restart looks like a lost connection. So after each of those,
a relay delivers the last minute's changes again.
"""

import hashlib

from .errors import AnotherRun
from .sentinel import Sentinels
from .trust import Trust


class Identity:
    """The identity of the Redis that was met last. `trust` in it is lost when another one is met."""

    def __init__(self, trust: Trust) -> None:
        self.run: str | None = None
        """The run of Redis that was met last."""
        self.epoch: str | None = None
        """The epoch of Redis, where one is recorded (`record.py`)."""
        self.term = 0
        """In a cluster, how often this node was made the holder of slots whose holder had died, or was cut off."""
        self.refused: str | None = None
        """Why nothing may be written to this Redis: another one is believed, or another deployment owns this one."""
        self.ours: bool | None = True
        """Whether the pending entries in Redis are ours to flush, None while that is unknown."""
        self.forgetful = False
        """Whether Redis may have lost the latest invalidations."""
        self.sentinels: Sentinels | None = None
        """The Sentinels that all pools of this Redis ask. Asked apart, two pools could follow different answers."""
        self._trust = trust
        self._lives: tuple[str, str | None, int] | None = None
        self._life = ""

    @property
    def life(self) -> str | None:
        """The present life: the run, or a short word for epoch, run and term. Values of any other life are misses."""
        if self.epoch is None:
            return self.run
        if self._lives != (self.epoch, self.run, self.term):
            self._lives = self.epoch, self.run, self.term
            term = f"-{self.term}" if self.term else ""
            self._life = hashlib.sha256(f"{self.epoch}-{self.run}{term}".encode()).hexdigest()[:16]
        return self._life

    def meet(self, run: str, *, lost: bool = False) -> None:
        """Records that a connection was made to this `run` of Redis. Raises AnotherRun if another run was met before:
        the pending command was meant for that one. `lost` says that the connection replaces a lost one, and that Redis
        does not report restarts: it is not believed again before the last minute's changes were invalidated again."""
        before, self.run = self.run, run
        if before not in (None, run):
            self._trust.lose("it has restarted or was replaced")
            raise AnotherRun("Redis has restarted or was replaced.")
        if lost:
            self.forgetful = True
            if not self._trust.lost:
                self._trust.lose("a connection to it was lost, and it does not report whether it has restarted")

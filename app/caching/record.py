"""The record in Redis: the epoch that was written to it, and evidence that Redis has not gone back since.

    epoch    a hash: epoch, deployment, history, position     the epoch, and its owner
             telling                                          a random word, a new one each time an epoch is written
             claim, claims_for                                a claim to write another epoch, and for which history
             beat:<instance>                                  the word that each instance left at its last poll

An epoch is a period in which one Redis and one database belong together. A cached value belongs to one epoch, and is a
miss in any other. A Redis that was replaced, or that went back to an earlier state (a snapshot, SWAPDB), has another
epoch here, or another beat than the one left last.

What can go wrong: `CacheUnavailable` if Redis does not answer. A Redis that goes back by less than one poll has the
same beat, so that is not detected.
"""

import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from redis.asyncio import Redis

from .clock import RedisClock
from .errors import REDIS_DOWN
from .scripts import script
from .words import unavailable

T = TypeVar("T")

VOID = "void "
"""Prefix of what replaces the epoch in the record of a Redis that went back."""
NONE = "-"
LATE = timedelta(seconds=2)
"""How long after its call failed a beat may still reach the record."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of an epoch: a deployment and one history of its database, which had reached `position`, in bytes."""

    deployment: str
    history: str
    position: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The record as read: the epoch and its owner, the claim and the history it is for. `went_back` says that this
    instance's last beat is gone: the record is void from then on."""

    epoch: str | None
    owner: Owner | None
    claim: str | None
    claims_for: str
    went_back: bool


class Record:
    """The record of one Redis, under the name `name`."""

    def __init__(self, redis: Redis, name: str, clock: RedisClock) -> None:
        self._redis, self._name, self._clock = redis, name, clock
        self._instance = f"beat:{secrets.token_hex(8)}"
        self._beats = {NONE}
        """The beats that may be in the record: more than one after an answer was lost."""
        self._late: dict[str, float] = {}
        """Beats whose answer was lost, and since when. Redis may still execute them, even after later ones."""
        self._telling = NONE
        self._past: deque[str] = deque(maxlen=100)
        """The tellings seen before the present one. A Redis that has one of them went back. A telling that was never
        seen was written anew, as after FLUSHALL."""
        self._beat, self._claim = script(redis, "beat"), script(redis, "claim")
        self._refute, self._tell = script(redis, "refute"), script(redis, "tell")

    async def beat(self, epoch: str | None, position: int) -> Seen:
        """Reads the record, sets the clock, and leaves a beat if the record is of `epoch`. Raises what redis-py
        raises."""
        new, now = secrets.token_hex(8), time.monotonic()
        before, self._beats = self._beats, self._beats | {new}
        self._late = {beat: since for beat, since in self._late.items() if now - since < LATE.total_seconds()}
        known = [self._telling, " ".join(before | self._late.keys()), " ".join(self._past)]
        try:
            seconds, micros, left, went_back, *found = await self._beat(
                keys=[self._name], args=[epoch or "", self._instance, new, position, *known]
            )
        except REDIS_DOWN:
            self._late[new] = time.monotonic()
            raise
        self._clock.set(int(seconds) * 1000 + int(micros) / 1000)
        words = [None if one is None else one.decode() for one in found]
        token, deployment, history, told, claim, claims_for, telling, beat = words
        position = int(told) if told is not None and told.isdecimal() and len(told) < 20 else 0
        owner = None if token is None else Owner(deployment or "", history or "", position)
        if token is not None and token == epoch and not went_back:
            self._heard_of(telling or NONE)
            self._beats = {new} if left else {beat or NONE}
        return Seen(token, owner, claim, claims_for or "", bool(went_back))

    async def claim(self, claim: str, owner: Owner, replaces: str | None) -> str:
        """Claims the record, in place of the claim `replaces`, and returns the claim that holds now. Raises
        CacheUnavailable."""
        args = [claim, owner.history, replaces or ""]
        stands: bytes | str = await self._ask(lambda: self._claim(keys=[self._name], args=args))
        return stands.decode() if isinstance(stands, bytes) else stands

    async def refute(self, epoch: str, claim: str) -> bool:
        """Removes a claim if the record is still of `epoch`, and returns whether it did. Raises CacheUnavailable."""
        return bool(await self._ask(lambda: self._refute(keys=[self._name], args=[epoch, claim])))

    async def tell(self, epoch: str, owner: Owner, claim: str | None) -> bool:
        """Writes an epoch to Redis if it has no record, or if `claim` still holds. Returns whether it did. Raises
        CacheUnavailable."""
        beat, telling = secrets.token_hex(8), secrets.token_hex(8)
        fields = {
            "epoch": epoch,
            "telling": telling,
            "deployment": owner.deployment,
            "history": owner.history,
            "position": owner.position,
            self._instance: beat,
        }
        args = [claim or "", *(word for field in fields.items() for word in field)]
        told = bool(await self._ask(lambda: self._tell(keys=[self._name], args=args)))
        if told:
            self._heard_of(telling)
            self._beats = {beat}
        return told

    def _heard_of(self, telling: str) -> None:
        if telling != self._telling:
            self._past.append(self._telling)
            self._telling, self._beats = telling, {NONE}

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> Any:
        try:
            return await call()
        except REDIS_DOWN as error:
            raise unavailable(error) from error

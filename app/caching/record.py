"""The record in Redis: of which epoch it was told, and whether it still knows what it was told last.

    epoch    a hash: epoch, deployment, history, position     what it was told, and whose it is
             telling                                          a random word, another one each time that it is told
             claim, claims_for                                who wants to tell it of another epoch, for which history
             beat:<instance>                                  what each instance has left at its last poll

An epoch is a time in which one Redis and one database belong together: what is kept in Redis is of one epoch, and a
miss in any other. A Redis that is another one than before, or went back to what it was (a snapshot, SWAPDB), has
another epoch here, or a beat that is not the one which was left last.

What can go wrong: `CacheUnavailable`, when Redis does not answer. A Redis that goes back by less than one poll has the
same beat, and is not noticed.
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
"""Begins what stands in place of an epoch, in a Redis that went back to it."""
NONE = "-"
LATE = timedelta(seconds=2)
"""So long after its answer was given up, a beat may still come to stand in the record."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose epoch it is: a deployment, with one history of its database, which had come to `position`, in bytes."""

    deployment: str
    history: str
    position: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found in the record: the epoch and its owner, and who claims it, for which history. `went_back` says
    that what this instance has left there last is gone: the record is void from then on."""

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
        """What may stand there: more than one when an answer was lost."""
        self._late: dict[str, float] = {}
        """Beats whose answer was lost, and since when: Redis may carry them out yet, behind later ones."""
        self._telling = NONE
        self._past: deque[str] = deque(maxlen=100)
        """The tellings that were seen before the present one: after FLUSHALL a Redis is told anew."""
        self._beat, self._claim = script(redis, "beat"), script(redis, "claim")
        self._refute, self._tell = script(redis, "refute"), script(redis, "tell")

    async def beat(self, epoch: str | None, position: int) -> Seen:
        """Looks, sets the clock, and leaves a beat while the record is of `epoch`. Raises what redis-py raises."""
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
        """Claims the record, in place of the claim that it `replaces`, and answers which one stands now. Raises
        CacheUnavailable."""
        args = [claim, owner.history, replaces or ""]
        stands: bytes | str = await self._ask(lambda: self._claim(keys=[self._name], args=args))
        return stands.decode() if isinstance(stands, bytes) else stands

    async def refute(self, epoch: str, claim: str) -> bool:
        """Takes a claim away, if the record still is of `epoch`. Raises CacheUnavailable."""
        return bool(await self._ask(lambda: self._refute(keys=[self._name], args=[epoch, claim])))

    async def tell(self, epoch: str, owner: Owner, claim: str | None) -> bool:
        """Tells Redis of an epoch: if it has no record, or `claim` still stands. Answers whether it was told, and
        raises CacheUnavailable."""
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

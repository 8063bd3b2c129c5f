"""The contestants billed for an advice: no cache, our four, and TTL only with the longest TTL that the needs allow."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from redis.asyncio import Redis

from app.advice import SHORTEST, Choice, Needs
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.published import TtlOnly
from app.lab.strategy import Strategy, Table

SLACK = timedelta(seconds=1)
"""Subtracted from the allowed staleness: an entry's TTL begins when its load ends, so the entry is already as old as
the load took. The published code passes the TTL in whole seconds, so one second is the least."""
NO_CACHE = "no cache"


def alternatives(needs: Needs) -> Sequence[Contestant]:
    """Returns the contestants. Where the needs rule out TTL only, it is billed with the TTL of the others."""

    def ttl_only(redis: Redis, table: Table, prefix: str, ttl: timedelta) -> Strategy:
        if needs.stale is not None and needs.stale >= SHORTEST:
            ttl = min(ttl, max(SHORTEST, needs.stale - SLACK))
        return TtlOnly(redis, table, prefix, ttl)

    return [
        replace(contestant, make=ttl_only) if contestant.name == Choice.TTL_ONLY else contestant
        for contestant in CONTESTANTS
        if contestant.name in (NO_CACHE, *Choice)
    ]

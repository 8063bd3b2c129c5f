"""The topologies in which the suites of faults run.

    redis       the URL names one Redis
    sentinel    the URL names a Sentinel, which names it
    cluster     the URL names the nodes of a cluster

    direct      the URL names Postgres
    pooled      the URL names PgBouncer in transaction mode

A topology is one of the first three, and one of the other two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import pytest
from _pytest.mark import ParameterSet

RedisKind = Literal["redis", "sentinel", "cluster"]
DatabaseKind = Literal["direct", "pooled"]


@dataclass(frozen=True, slots=True)
class Topology:
    """One of them."""

    redis: RedisKind = "redis"
    database: DatabaseKind = "direct"

    def __str__(self) -> str:
        return f"{self.redis}-{self.database}"


TOPOLOGIES = [Topology(redis, database) for redis in get_args(RedisKind) for database in get_args(DatabaseKind)]
"""The simplest one comes first."""
BY_NAME = {str(topology): topology for topology in TOPOLOGIES}


def seeded(seeds: Mapping[str, Iterable[int]], sample: Mapping[str, Iterable[int]]) -> list[ParameterSet]:
    """Returns the cases of a test with the parameters "topology" and "seed": all `seeds` of each one. Those outside the
    `sample` are among the long proofs."""
    return [
        pytest.param(BY_NAME[name], seed, id=f"{name}-{seed}", marks=() if seed in sampled else pytest.mark.prove)
        for name, all_of_it in seeds.items()
        for sampled in [set(sample.get(name, ()))]
        for seed in all_of_it
    ]

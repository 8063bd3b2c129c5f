"""The drill under contention: what it shows of the published variants, of ours, and of ours with something left out."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from app.embedded import Endpoints
from app.lab.comparison import contention
from app.lab.comparison.contention import DRILLED, RUN, contend
from app.lab.comparison.contestant import CONTESTANTS, Contestant, Kind
from app.lab.comparison.lab_table import add_rows
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.pool import Pool
from app.lab.ours import CacheAside, ReadThrough, WriteThrough
from app.lab.published import PUBLISHED

FINE = Verdict()
TTL = timedelta(minutes=5)


async def drilled(
    endpoints: Endpoints, pool: Pool, contestants: Sequence[Contestant], seed: int = 1
) -> dict[str, Verdict]:
    for each in contestants:
        await add_rows(pool, f"{RUN}/{each.name}/", DRILLED, cached=each.kind is Kind.OURS)
    return await contend(endpoints, contestants, ttl=TTL, seed=seed, stop=asyncio.Event(), progress=lambda played: None)


def named(*names: str) -> list[Contestant]:
    return [contestant for contestant in CONTESTANTS if contestant.name in names]


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(1, 6))
async def test_published_variants_are_stale_or_lose_and_all_others_are_right_in_one_run(
    lab_endpoints: Endpoints, pool: Pool, seed: int
) -> None:
    """One more run is in `test_one_run.py`."""
    found = await drilled(lab_endpoints, pool, CONTESTANTS, seed)
    assert found.keys() == {contestant.name for contestant in CONTESTANTS}
    for contestant in CONTESTANTS:
        if contestant.kind is not Kind.PUBLISHED:
            assert found[contestant.name] == FINE, contestant.name
        elif "dirty" in contestant.name:
            assert found[contestant.name].lost > 0
        else:
            assert found[contestant.name].stale > 0, contestant.name
    for name in ("write-through, concurrent", "write-through, concurrent with catch"):
        assert found[name].uncommitted > 0, name
    assert {name for name, verdict in found.items() if verdict != FINE} == {
        name for name, variant in PUBLISHED.items() if variant.shows
    }


@pytest.mark.parametrize("name", ["cache-aside, as published", "cache-aside with SETNX", "write-behind, list"])
async def test_the_staged_race_alone_leaves_the_old_row_in_a_published_variants_cache(
    lab_endpoints: Endpoints, pool: Pool, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(contention, "ROUNDS", 0)
    found = await drilled(lab_endpoints, pool, named(name, "cache-aside", "read-through", "write-through"))
    assert found.pop(name).stale == contention.RACED
    assert set(found.values()) == {FINE}


async def test_when_stopped_it_ends_with_what_it_has(lab_endpoints: Endpoints, pool: Pool) -> None:
    stop = asyncio.Event()
    stop.set()
    found = await contend(
        lab_endpoints, named("no cache", "cache-aside"), ttl=TTL, seed=1, stop=stop, progress=lambda played: None
    )
    assert set(found.values()) == {FINE}


async def _saved_and_not_invalidated(self: CacheAside | ReadThrough, key: str, value: int) -> None:
    await self._table.save(key, value)


async def _invalidated_and_then_saved(self: CacheAside | ReadThrough, key: str, value: int) -> None:
    row = await self._table.load(key)
    assert row is not None
    await self._cache.invalidate(key, row.version)
    await self._table.save(key, value)


@pytest.mark.parametrize(
    ("kind", "name", "write"),
    [
        (CacheAside, "cache-aside", _saved_and_not_invalidated),
        (ReadThrough, "read-through", _invalidated_and_then_saved),
        pytest.param(CacheAside, "cache-aside", _invalidated_and_then_saved, marks=pytest.mark.prove),
        pytest.param(ReadThrough, "read-through", _saved_and_not_invalidated, marks=pytest.mark.prove),
    ],
)
async def test_a_missing_or_early_invalidation_is_detected(
    lab_endpoints: Endpoints, pool: Pool, monkeypatch: pytest.MonkeyPatch, kind: type, name: str, write: object
) -> None:
    monkeypatch.setattr(kind, "write", write)
    found = await drilled(lab_endpoints, pool, named(name, "no cache"))
    assert found[name].stale > 0
    assert found["no cache"] == FINE


async def test_a_write_through_that_acknowledges_before_its_commit_is_detected(
    lab_endpoints: Endpoints, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: set[asyncio.Task[None]] = set()
    right = WriteThrough.write

    async def write(self: WriteThrough, key: str, value: int) -> None:
        tasks.add(asyncio.create_task(right(self, key, value)))
        await asyncio.sleep(0)

    monkeypatch.setattr(WriteThrough, "write", write)
    found = await drilled(lab_endpoints, pool, named("write-through"))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert found["write-through"].stale > 0

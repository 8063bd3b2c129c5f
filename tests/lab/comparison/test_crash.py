"""The drill with a killed process: which strategies lose acknowledged writes, which count them twice, which do
neither."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from app.caching.write_behind import gathering
from app.embedded import Endpoints
from app.lab.comparison import crash
from app.lab.comparison.contestant import CONTESTANTS, Contestant, Kind
from app.lab.comparison.crash import DRILLED, RUN, take_over, write_and_die
from app.lab.comparison.killed import Killed
from app.lab.comparison.lab_table import add_rows
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.pool import Pool
from app.page_views import store
from tests.eventually import PATIENCE

FINE = Verdict()
TTL = timedelta(minutes=5)


async def killed_and_taken_over(
    endpoints: Endpoints, pool: Pool, contestants: Sequence[Contestant]
) -> tuple[Killed, dict[str, Verdict]]:
    for each in contestants:
        await add_rows(pool, f"{RUN}/{each.name}/", DRILLED, cached=each.kind is Kind.OURS)
    killed = await write_and_die(endpoints, contestants, TTL, asyncio.Event())
    return killed, await take_over(endpoints, contestants, TTL, killed, asyncio.Event())


def named(*names: str) -> list[Contestant]:
    return [contestant for contestant in CONTESTANTS if contestant.name in names]


@pytest.fixture
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a dead flusher's entries be reclaimed after two seconds; `test_one_run.py` waits for the service's own
    ten."""
    monkeypatch.setattr(gathering, "ABANDONED", timedelta(seconds=2))
    monkeypatch.setattr(crash, "ABANDONED", timedelta(seconds=2.5))


@pytest.mark.prove
@pytest.mark.parametrize("round_", range(3))
async def test_published_variants_lose_what_was_in_flight_and_ours_nothing_in_one_run(
    lab_endpoints: Endpoints, pool: Pool, round_: int
) -> None:
    """One more run is in `test_one_run.py`."""
    killed, found = await killed_and_taken_over(lab_endpoints, pool, CONTESTANTS)
    for contestant in CONTESTANTS:
        assert killed.acknowledged(contestant.name) >= crash.ENOUGH, contestant.name
        if contestant.kind is not Kind.PUBLISHED:
            assert found[contestant.name] == FINE, contestant.name
        assert found[contestant.name].doubled == 0, contestant.name
    assert found["write-behind, list"].lost > 0
    assert found["write-behind, stream"].lost > 0
    # The cache has it, and the database never got it.
    assert found["write-through, concurrent"].uncommitted > 0
    assert found["write-through, concurrent with catch"].uncommitted > 0


@pytest.mark.usefixtures("sooner")
async def test_a_write_behind_without_its_ledger_is_found_to_double(
    lab_endpoints: Endpoints, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child committed a batch, and died before it could remove it from the stream. The parent gets it again.
    right = store.PageViewStore.apply

    async def apply(self: store.PageViewStore, batches: Sequence[Any]) -> int:
        await pool.execute("TRUNCATE applied")
        return await right(self, batches)

    monkeypatch.setattr(store.PageViewStore, "apply", apply)
    _killed, found = await killed_and_taken_over(lab_endpoints, pool, named("no cache", "write-behind"))
    assert found["write-behind"].doubled > 0
    assert found["no cache"] == FINE


@pytest.mark.usefixtures("sooner")
async def test_a_write_behind_that_removes_uncommitted_entries_is_found_to_lose(
    lab_endpoints: Endpoints, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def apply(self: store.PageViewStore, batches: Sequence[Any]) -> int:
        return len(batches)

    monkeypatch.setattr(store.PageViewStore, "apply", apply)
    _killed, found = await killed_and_taken_over(lab_endpoints, pool, named("write-behind"))
    assert found["write-behind"].lost > 0


async def test_when_stopped_the_child_is_gone_at_once(lab_endpoints: Endpoints, pool: Pool) -> None:
    stop = asyncio.Event()
    stop.set()
    killed = await write_and_die(lab_endpoints, named("no cache"), TTL, stop)
    assert killed.acknowledged("no cache") < crash.ENOUGH
    assert await take_over(lab_endpoints, named("no cache"), TTL, killed, stop) == {}


async def test_no_url_is_among_the_arguments_of_the_child(
    lab_endpoints: Endpoints, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of the machine may read them, and a URL may hold a password."""
    began: list[tuple[str, ...]] = []
    begin = asyncio.create_subprocess_exec

    async def noted(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        began.append(arguments)
        return await begin(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    stop = asyncio.Event()
    stop.set()
    await write_and_die(lab_endpoints, named("no cache"), TTL, stop)
    (arguments,) = began
    assert not any("://" in argument for argument in arguments)


async def test_a_child_whose_parent_dies_ends_by_itself(lab_endpoints: Endpoints, pool: Pool) -> None:
    """Otherwise its locks would hold up the next comparison, which removes the schema."""
    await add_rows(pool, f"{RUN}/no cache/", DRILLED, cached=False)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        crash.WRITER,
        "300",
        "no cache",
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "REDIS_URL": lab_endpoints.redis_url, "DATABASE_URL": lab_endpoints.database_url},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.readline()  # It is running.
    child.stdin.close()
    assert await asyncio.wait_for(child.wait(), PATIENCE) == 1

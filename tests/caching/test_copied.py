"""The library as somebody takes it home: copied under another name, run with three packages by the docs' programs."""

import asyncio
import importlib.metadata
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.service import REPOSITORY

NEEDED = ("redis", "hiredis", "pydantic")
PROGRAMS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "adopt.md").read_text(), re.DOTALL)
HERD = """
import asyncio, os
from home import Order, load
from caching import CacheAside, Region, open_cache

loads = 0

async def counted(order_id):
    global loads
    loads += 1
    return await load(order_id)

async def main():
    async with open_cache(os.environ["REDIS_URL"]) as cache, Region(cache, "orders", Order) as region:
        orders = CacheAside(region)
        await orders.invalidate(7, 10)
        readings = await asyncio.gather(*(orders.get(7, counted) for _ in range(300)))
        print(loads, {reading.value.item for reading in readings})

asyncio.run(main())
"""
OTHER = """
import asyncio, os, sys
from home import Order, load
from caching import CacheAside, Region, open_cache

async def main():
    async with open_cache(os.environ["REDIS_URL"]) as cache, Region(cache, "orders", Order) as region:
        orders = CacheAside(region)
        while await asyncio.to_thread(sys.stdin.readline):
            reading = await orders.get(7, load)
            print(reading.outcome, reading.value.item, flush=True)

asyncio.run(main())
"""

DIES = """
import asyncio, os, sys
import likes
from caching import Flusher, Target, WriteBehind, open_cache

async def flush(batches):
    if sys.stdin.readline() == "after the commit\\n":
        await likes.flush(batches)
    print("in the middle of a flush", flush=True)
    await asyncio.Event().wait()

async def main():
    target = Target(likes.load, flush, likes.salvage)
    async with open_cache(os.environ["REDIS_URL"]) as cache, WriteBehind(cache, "likes", target) as counters:
        await asyncio.gather(*(counters.add(f"post-{number % 7}", 1, f"click-{number}") for number in range(500)))
        print("accepted", flush=True)
        async with Flusher(cache, "likes", target):
            await asyncio.Event().wait()

asyncio.run(main())
"""
RESTARTED = """
import asyncio, os
from datetime import timedelta
import likes
from caching import Flusher, Target, WriteBehind, open_cache
from caching.write_behind import gathering

gathering.ABANDONED = timedelta(milliseconds=50)

async def main():
    target = Target(likes.load, likes.flush, likes.salvage)
    async with (
        open_cache(os.environ["REDIS_URL"]) as cache,
        WriteBehind(cache, "likes", target) as counters,
        Flusher(cache, "likes", target),
    ):
        await counters.add("post-2", 1, "click-499")
        print(sum([(await counters.get(f"post-{number}")).amount for number in range(7)]))
        while (await counters.backlog()).oldest is not None:
            await asyncio.sleep(0.01)
    print(likes.database.execute("SELECT sum(count) FROM likes").fetchone()[0])
    print(likes.database.execute("SELECT count(*) FROM dead_letters").fetchone()[0])

asyncio.run(main())
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the copy, the programs, and the packages that they need. Python finds no other packages."""
    shutil.copytree(REPOSITORY / "app" / "caching", tmp_path / "caching", ignore=shutil.ignore_patterns("__pycache__"))
    for name, program in zip(("home.py", "likes.py"), PROGRAMS, strict=True):
        (tmp_path / name).write_text(program)
    (tmp_path / "packages").mkdir()
    for name in _with_dependencies(NEEDED):
        for top in _tops(name):
            if top.exists() and not (tmp_path / "packages" / top.name).exists():
                (tmp_path / "packages" / top.name).symlink_to(top)
    return tmp_path


def _with_dependencies(names: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [match[0] for each in needs if "extra ==" not in each and (match := re.match(r"[\w.-]+", each))]
    return found


def _tops(name: str) -> set[Path]:
    files = importlib.metadata.files(name) or []
    return {
        Path(str(file.locate())).parents[len(file.parts) - 2] if len(file.parts) > 1 else Path(str(file.locate()))
        for file in files
        if ".." not in file.parts and "__pycache__" not in file.parts
    }


async def run(home: Path, program: str, endpoints: Endpoints, said: bytes = b"") -> asyncio.subprocess.Process:
    """Starts a program in that folder, without this project and its environment."""
    paths = f"import sys; sys.path[:0] = [{str(home)!r}, {str(home / 'packages')!r}]\n"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        "-W",
        "error",
        "-c",
        paths + program,
        cwd=home,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "REDIS_URL": endpoints.redis_url},
    )


async def said(process: asyncio.subprocess.Process) -> list[str]:
    """Returns the lines that it prints until it exits."""
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().splitlines()


MAIN = "import asyncio, home; asyncio.run(home.main())"


async def test_the_program_of_the_docs_runs_with_three_packages(home: Path, endpoints: Endpoints, redis: Redis) -> None:
    lines = await said(await run(home, MAIN, endpoints))
    kettle = "id=7 item='kettle' version=1"
    assert lines == [f"miss {kettle}", f"hit {kettle}", f"hit {kettle}", "id=7 item='teapot' version=2"]


async def test_three_hundred_readers_share_one_load(home: Path, endpoints: Endpoints, redis: Redis) -> None:
    assert await said(await run(home, HERD, endpoints)) == ["1 {'kettle'}"]


async def test_an_invalidation_is_seen_by_another_process(home: Path, endpoints: Endpoints, redis: Redis) -> None:
    other = await run(home, OTHER, endpoints)
    assert other.stdin is not None
    assert other.stdout is not None
    for outcome in ("miss", "hit"):
        other.stdin.write(b"\n")
        assert await other.stdout.readline() == f"{outcome} kettle\n".encode()
    await said(await run(home, MAIN, endpoints))
    other.stdin.write(b"\n")
    assert await other.stdout.readline() == b"hit teapot\n"
    other.stdin.close()
    assert await said(other) == []


async def test_the_likes_program_of_the_docs_counts_in_both_stores(
    home: Path, endpoints: Endpoints, redis: Redis
) -> None:
    lines = await said(await run(home, "import asyncio, likes; asyncio.run(likes.main())", endpoints))
    assert lines == ["Redis says 41", "SQLite says 41"]


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
async def test_likes_accepted_by_a_killed_process_are_flushed_once_by_the_next_process(
    home: Path, endpoints: Endpoints, redis: Redis, moment: str
) -> None:
    """It has accepted 500 likes, and is killed in the middle of its first flush. A client repeats the last like."""
    process = await run(home, DIES, endpoints)
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"accepted\n"
    process.stdin.write(f"{moment}\n".encode())
    assert await process.stdout.readline() == b"in the middle of a flush\n"
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    assert await said(await run(home, RESTARTED, endpoints)) == ["500", "500", "0"]


async def test_nothing_but_the_library_and_its_packages_can_be_imported(home: Path, endpoints: Endpoints) -> None:
    """Neither this project nor a package that only this project needs can be imported there."""
    for name in ("app", "sqlalchemy", "fastapi", "asyncpg"):
        process = await run(home, f"import {name}", endpoints)
        _out, err = await process.communicate()
        assert f"No module named '{name}'" in err.decode()

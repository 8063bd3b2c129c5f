"""The library as somebody takes it home: copied under another name, with three packages, by the program of the docs."""

import asyncio
import importlib.metadata
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.service import REPOSITORY

NEEDED = ("redis", "hiredis", "pydantic")
PROGRAM = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs" / "adopt.md").read_text(), re.DOTALL)
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


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the copy, the program, and the packages that it needs: theirs are all that Python finds."""
    shutil.copytree(REPOSITORY / "app" / "caching", tmp_path / "caching", ignore=shutil.ignore_patterns("__pycache__"))
    assert PROGRAM is not None
    (tmp_path / "home.py").write_text(PROGRAM[1])
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
    """What it prints until it ends."""
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


async def test_nothing_else_is_imported(home: Path, endpoints: Endpoints) -> None:
    """Neither this project nor a package that only this project needs can be found there."""
    for name in ("app", "sqlalchemy", "fastapi", "asyncpg"):
        process = await run(home, f"import {name}", endpoints)
        _out, err = await process.communicate()
        assert f"No module named '{name}'" in err.decode()

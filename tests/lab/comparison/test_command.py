"""`fourways lab compare` with traces as they come in practice, and when it is interrupted."""

import gzip
import io
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from app.embedded import Endpoints
from app.lab.commands import compare, lab
from app.lab.comparison.contestant import CONTESTANTS
from app.lab.comparison.entrant import PREFIX
from app.lab.comparison.schema import SCHEMA
from tests.eventually import eventually
from tests.open_directory import open_directory
from tests.terminal import terminal

INTERRUPTED = 130


@pytest.fixture
def stores(servers: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configures the tests' own stores for the command."""
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DATABASE_URL", servers.database_url)


@pytest.fixture
def few(stores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plays few contestants, for tests of the trace. All contestants are in `../commands/test_compare.py`."""
    named = [contestant for contestant in CONTESTANTS if contestant.name in ("no cache", "write-behind")]
    monkeypatch.setattr(compare, "play", partial(compare.play, contestants=named))


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


def run(*arguments: str) -> tuple[int, str, str]:
    """Returns its exit code, its output, and its complaints."""
    result = CliRunner().invoke(lab, ["compare", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def told(path: Path, *arguments: str) -> dict[str, Any]:
    code, printed, complaints = run("--trace", str(path), "--quick", "--json", "--requests", "40", *arguments)
    assert code == 0, complaints
    answer: dict[str, Any] = json.loads(printed)
    return answer


@pytest.mark.usefixtures("few")
def test_a_trace_may_mix_line_ends(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(b"op,key\nget,a\r\nset,b\rget,b\n\r\nset,a")
    answer = told(trace)
    assert (answer["trace"]["reads"], answer["trace"]["writes"], answer["trace"]["keys"]) == (2, 2, 2)


@pytest.mark.usefixtures("stores")
def test_keys_that_are_not_text_are_played_as_text(tmp_path: Path) -> None:
    # A lone surrogate encoded as UTF-8, a Latin-1 letter, a percent-encoded zero byte, and control characters.
    keys = (b"\xed\xa0\x80", b"caf\xe9", b"/%00", b"a\x01b", "\u202e\U0001f600".encode(), b"{x}:*?[", b"a b'\"\\")
    trace = tmp_path / "trace"
    quoted = (b'"' + key.replace(b'"', b'""') + b'"' for key in keys)
    trace.write_bytes(b"op,key\n" + b"".join(b"set,%b\nget,%b\n" % (key, key) for key in quoted))
    code, printed, complaints = run("--trace", str(trace), "--quick", "--json")
    assert code == 0, complaints
    for strategy in json.loads(printed)["strategies"]:
        assert (strategy["reads"], strategy["writes"], strategy["errors"]) == (7, 7, 0), strategy["name"]


@pytest.mark.usefixtures("stores")
def test_a_zero_byte_is_refused_in_one_sentence(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(b"op,key\n" + b"get,a\n" * 3_000 + b"get,\0\n")
    code, printed, complaints = run("--trace", str(trace))
    assert (code, printed) == (1, "")
    assert "zero byte" in complaints


@pytest.mark.usefixtures("few")
def test_json_says_what_was_skipped_and_what_was_counted(tmp_path: Path) -> None:
    request = '203.0.113.9 - - [01/Jul/1995:00:00:01 -0400] "{} /a HTTP/1.0" 200 6245\n'
    trace = tmp_path / "access.log"
    trace.write_text(request.format("GET") * 3 + request.format("OPTIONS") * 2 + "nothing\n")
    answer = told(trace)
    assert (answer["trace"]["skipped"], answer["trace"]["exact"], answer["trace"]["whole"]) == (3, True, True)


@pytest.mark.usefixtures("few")
def test_a_long_trace_is_counted_whole_and_its_first_part_is_played(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv.gz"
    with gzip.open(trace, "wt", compresslevel=1) as file:
        file.write("op,key\n")
        file.writelines(f"{'set' if n % 4 == 0 else 'get'},user:{n % 50_000}\n" for n in range(200_000))
    answer = told(trace)
    assert (answer["trace"]["reads"], answer["trace"]["writes"], answer["trace"]["keys"]) == (150_000, 50_000, 50_000)
    assert answer["replayed"]["operations"] == 40


@pytest.mark.usefixtures("few")
def test_gzip_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(b"op,key\n" + b"get,a\nset,b\n" * 20)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
    result = CliRunner().invoke(lab, ["compare", "--trace", "-", "--quick", "--json"], input=packed)
    answer = json.loads(result.stdout)
    assert answer["trace"]["name"] == "standard input"
    assert (answer["trace"]["reads"], answer["trace"]["writes"]) == (20, 20)


@pytest.mark.usefixtures("few")
def test_an_open_loop_reports_its_rate(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("op,key\n" + "get,a\nset,b\n" * 20)
    answer = told(trace, "--rate", "4000")
    assert (answer["replayed"]["rate"], answer["replayed"]["clients"]) == (4000, None)
    assert answer["replayed"]["operations"] == 40


async def test_when_interrupted_while_reading_its_exit_code_says_so(directory: Path, endpoints: Endpoints) -> None:
    trace = directory / "trace"
    os.mkfifo(trace)
    command = ("fourways", "lab", "compare", "--trace", str(trace))
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url}
    for number in (signal.SIGINT, signal.SIGTERM):
        async with terminal(directory / "screen", *command, **stores) as running:
            with trace.open("wb", buffering=0) as writer:  # Opens when the command reads.
                writer.write(b"op,key\nget,a\n")
                running.send(number)
                assert await running.code() == INTERRUPTED
        assert "Traceback" not in running.screen


async def test_when_interrupted_while_the_stores_start_it_removes_them(directory: Path) -> None:
    command = ("fourways", "lab", "compare", "--workload", "ycsb-b")
    async with terminal(directory / "screen", *command, TMPDIR=str(directory)) as running:

        async def starts() -> bool:
            return "redis-server" in running.tree().names()

        await eventually(starts)
        tree = running.tree()
        running.send(signal.SIGTERM)
        assert await running.code() == INTERRUPTED
        await tree.gone()
    assert "Traceback" not in running.screen
    assert os.listdir(directory) == ["screen"]  # noqa: PTH208  # one check


ENDS = [
    # A phase, how many requests make it last, further options, and the signal.
    ("crash:", 100_000, (), signal.SIGTERM),
    ("replay:", 100_000, ("--quick",), signal.SIGINT),
    *(
        pytest.param(phase, requests, (), number, marks=pytest.mark.prove)
        for phase, requests in (("crash:", 100_000), ("replay:", 100_000), ("contention:", 60))
        for number in (signal.SIGINT, signal.SIGTERM)
    ),
]


@pytest.mark.parametrize(("phase", "requests", "further", "number"), ENDS)
async def test_when_interrupted_in_any_phase_it_reports_and_leaves_the_stores_as_they_were(
    endpoints: Endpoints,
    directory: Path,
    sql: asyncpg.Connection,
    redis: Redis,
    phase: str,
    requests: int,
    further: tuple[str, ...],
    number: signal.Signals,
) -> None:
    await redis.set("theirs", "kept")
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url, "TMPDIR": str(directory)}
    command = ("fourways", "lab", "compare", "--workload", "ycsb-b", "--requests", str(requests), "--keys", "50")
    async with terminal(directory / "screen", *command, *further, **stores) as running:
        await eventually(_has(redis, phase))
        tree = running.tree()
        running.send(number)
        assert await running.code() == INTERRUPTED
        await tree.gone()
    assert "It was interrupted: this is what was measured until then." in running.screen
    assert "cache-aside" in running.screen
    assert "Traceback" not in running.screen
    assert [key async for key in redis.scan_iter(match=f"{PREFIX}*")] == []
    assert await redis.get("theirs") == b"kept"
    assert await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", SCHEMA) == 0
    assert os.listdir(directory) == ["screen"]  # noqa: PTH208  # one check


def _has(redis: Redis, phase: str) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        return bool([key async for key in redis.scan_iter(match=f"{PREFIX}{phase}*", count=1_000)])

    return has

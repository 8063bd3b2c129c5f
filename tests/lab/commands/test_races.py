"""`fourways lab races`, as a person runs it."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.lab.anomaly import Anomaly
from app.lab.commands import races
from app.lab.races.cases import CASES, Case
from tests.eventually import eventually
from tests.lab.commands.command import run, with_its_servers
from tests.terminal import terminal

LONG = ("--time", "300")
"""The bound is the number of schedules."""
PUBLISHED, REPAIRED, OURS = "cache-aside, as published", "write-behind, dirty keys compared", "cache-aside"


@pytest.mark.usefixtures("stores")
def test_a_failure_is_shown_as_a_timeline_and_a_pass_as_one_line() -> None:
    chosen = ("--case", PUBLISHED, "--case", REPAIRED, "--case", OURS)
    code, printed, complaints = run("races", *chosen, *LONG, "--schedules", "50")
    assert code == 0, complaints
    assert "cache-aside, as published: A slow reader keeps the old row after the invalidation.\n\nreader  " in printed
    assert "\nGET k → nothing\nSELECT → 0\n" in printed
    assert re.search(r"\n {10,}UPDATE to 1 → 1\n", printed)
    assert "\nstale: In the end a read answers 0, and the database has 1.\n" in printed
    assert "cache-aside: 50 schedules passed.\n" in printed
    assert "write-behind, dirty keys compared: 50 schedules passed.\n" in printed
    assert re.search(r"cache-aside, as published +published +\d+ .* fails: stale", printed)
    assert re.search(r"write-behind, dirty keys compared +repaired +50 .* passed", printed)
    assert re.search(r"cache-aside +ours +50 .* passed", printed)
    assert "All is as expected" in complaints


@pytest.mark.parametrize("schedules", [80, pytest.param(200, marks=pytest.mark.prove)])
@pytest.mark.usefixtures("stores")
def test_only_json_is_printed_and_a_seed_repeats_its_output(schedules: int) -> None:
    cases = ("--case", "write-behind, list", "--case", OURS)
    chosen = ("races", *cases, *LONG, "--schedules", str(schedules), "--seed", "7")
    code, printed, _complaints = run(*chosen, "--json")
    answer = json.loads(printed)
    assert (code, answer["seed"], answer["complete"], answer["as_told"]) == (0, 7, True, True)
    published, ours = answer["cases"]
    assert (published["name"], published["ours"], published["copy"]) == ("write-behind, list", False, False)
    assert published["shows"] == sorted(failure["anomaly"] for failure in published["failures"])
    assert published["defect"].startswith("A flusher that dies")
    sizes = [(each["preemptions"] + each["faults"], each["faults"]) for each in published["failures"]]
    assert sizes == sorted(sizes)
    assert published["failures"][0]["timeline"][0].split() == ["reader", "writer", "flusher"]
    assert (ours["name"], ours["ours"], ours["copy"], ours["schedules"]) == (OURS, True, True, schedules)
    assert (ours["defect"], ours["failures"]) == (None, [])
    assert run(*chosen, "--json") == (code, printed, _complaints)


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        (replace(_case(PUBLISHED), shows=frozenset()), r"cache-aside, as published shows what it should not: stale\."),
        (
            replace(_case(OURS), shows=frozenset({Anomaly.LOST})),
            r"cache-aside did not show, in \d+ schedules: lost\.",
        ),
    ],
)
@pytest.mark.usefixtures("stores")
def test_an_unexpected_result_is_a_failure(case: Case, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(races, "CASES", (case,))
    code, printed, complaints = run("races", *LONG, "--schedules", "30", "--json")
    assert code == 1
    assert re.search(complaint, complaints)
    assert json.loads(printed)["as_told"] is False


@pytest.mark.usefixtures("stores")
def test_an_unknown_case_is_refused_with_a_list_of_the_known_ones() -> None:
    code, printed, complaints = run("races", "--case", "cash-aside")
    assert (code, printed) == (2, "")
    assert "There is no case 'cash-aside'. There are: cache-aside, as published; " in complaints


def test_an_unreachable_store_is_reported_in_one_sentence(servers: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    code, printed, complaints = run("races", "--case", OURS)
    assert (code, printed) == (1, "")
    assert "A store does not answer: " in complaints
    assert "Traceback" not in complaints


async def test_ctrl_c_reports_what_was_found_and_leaves_nothing_behind(
    endpoints: Endpoints, directory: Path, sql: asyncpg.Connection, redis: Redis
) -> None:
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url}
    chosen = ("--case", PUBLISHED, "--case", OURS, "--schedules", "1000000", "--time", "3600")
    async with terminal(directory / "screen", "fourways", "lab", "races", *chosen, **stores) as running:
        await running.shows("In the end a read answers 0")

        async def ours_is_explored() -> bool:
            return bool(await redis.keys("races:*"))

        await eventually(ours_is_explored)
        tree = running.tree()
        running.ctrl_c()
        assert await running.code() == 130
        await tree.gone()
    assert "It was interrupted: 1 of 2 cases were explored until then." in running.screen
    assert "Traceback" not in running.screen
    assert not await redis.keys("*")
    assert not await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fourways_races%'")


async def test_on_a_bare_machine_it_starts_its_own_stores_and_removes_them(directory: Path) -> None:
    chosen = ("--case", PUBLISHED)
    async with terminal(directory / "screen", "fourways", "lab", "races", *chosen, TMPDIR=str(directory)) as running:
        seen = await with_its_servers(running)
        assert await running.code() == 0
        await seen.gone()
    assert "fails: stale" in running.screen
    assert os.listdir(directory) == ["screen"]  # noqa: PTH208  # one check

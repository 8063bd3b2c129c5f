"""`fourways dead-letters`, as an operator runs it."""

import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.embedded import Endpoints
from tests.command_line import says
from tests.eventually import eventually
from tests.open_directory import open_directory
from tests.service import free_port
from tests.terminal import terminal

REFUSED = 'new row for relation "page_views" violates check constraint "refused"'
NASTY = {
    "[red]x[/red]": "[red]x[/red]",
    "[/red] [link=file:///etc/passwd]x": "[/red] [link=file:///etc/passwd]x",
    ":heart: :warning:": ":heart: :warning:",
    "\x1b[2J\x1b[31mgone": r"\x1b[2J\x1b[31mgone",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31mred": r"\x9b31mred",
    "one\ntwo": r"one\ntwo",
    "one\rtwo": r"one\rtwo",
    "one\ttwo\x08\x0b\x0c": r"one\ttwo\x08\x0b\x0c",
    "\u202eright to left": r"\u202eright to left",
    "C:\\docs\\[x]": "C:\\docs\\[x]",
    "grün/茶": "grün/茶",
}
"""Pages, and how they are shown: literally, on one line, with everything escaped that a terminal would execute."""


class CommandLine:
    """Runs `fourways dead-letters` with these stores, in this process or, as an operator does, in a new one."""

    def __init__(self, directory: Path, endpoints: Endpoints) -> None:
        self._directory, self._screens = directory, 0
        self._environment = {
            "REDIS_URL": endpoints.redis_url,
            "DATABASE_URL": endpoints.database_url,
            "FOURWAYS_DIRECTORY": str(directory / "data"),
        }

    async def says(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Returns the exit code and the output."""
        return await says("dead-letters", *arguments, **{**self._environment, **environment})

    async def shows(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Returns the same for a new process, whose terminal is 200 columns wide."""
        self._screens += 1
        screen = self._directory / f"screen-{self._screens}"
        async with terminal(
            screen, "fourways", "dead-letters", *arguments, **{**self._environment, **environment}
        ) as running:
            code = await running.code()
            assert "Traceback" not in running.screen, running.screen
            return code, running.screen


@pytest.fixture
def fourways(endpoints: Endpoints) -> Iterator[CommandLine]:
    with open_directory() as directory:
        yield CommandLine(directory, endpoints)


async def dead(sql: asyncpg.Connection, page: str | None = "home", delta: int | None = 3) -> int:
    """Inserts a dead letter, and returns its id."""
    query = (
        "INSERT INTO dead_letters (page, delta, reason, deliveries, created_at) "
        "VALUES ($1, $2, 'bigint out of range', 2, '2025-01-02 03:04:05+00') RETURNING id"
    )
    return int(await sql.fetchval(query, page, delta))


async def left(sql: asyncpg.Connection) -> list[int]:
    """Returns the ids of the remaining letters."""
    return [int(row["id"]) for row in await sql.fetch("SELECT id FROM dead_letters ORDER BY id")]


async def stored(sql: asyncpg.Connection) -> dict[str, int]:
    """Returns the views in Postgres."""
    return {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}


async def test_each_command_says_what_it_does(fourways: CommandLine) -> None:
    # Help works even with an invalid setting.
    answers = [await fourways.says(*arguments, "--help", PORT="0") for arguments in ((), ("replay",), ("discard",))]
    assert [code for code, _screen in answers] == [0, 0, 0]
    for (_code, screen), words in zip(
        answers,
        (
            ("Page views that Postgres has refused", "Show the dead letters, oldest first.", "replay", "discard"),
            ("Count the views of dead letters whose cause is gone", "ID", "--all", "All that there are."),
            ("Remove dead letters. Their views are never counted.", "ID", "--all", "The ids that `list` shows."),
        ),
        strict=True,
    ):
        assert [word for word in words if word not in screen] == [], screen


async def test_the_list_says_that_there_are_no_dead_letters(fourways: CommandLine) -> None:
    assert await fourways.says("list") == (0, "There are no dead letters.\n")


async def test_the_list_has_a_row_for_each_letter_and_all_can_be_discarded(
    fourways: CommandLine, sql: asyncpg.Connection
) -> None:
    await dead(sql, "docs/intro.html", 1_234_567)
    await sql.execute(
        "INSERT INTO dead_letters (entry, reason, deliveries) VALUES ($1, 'It is no batch.', 1)",
        b"\xff\x1b[31m{",
    )
    # The command reads two hundred letters at a time.
    await sql.execute(
        "INSERT INTO dead_letters (page, delta, reason, deliveries) SELECT 'a', 1, 'x', 1 FROM generate_series(3, 401)"
    )
    code, screen = await fourways.shows("list")
    assert code == 0
    head, *rows = screen.splitlines()
    assert head.split() == ["id", "page", "views", "why", "tries", "since"]
    assert [int(row.split()[0]) for row in rows] == [*range(1, 402)]
    first = ["1", "docs/intro.html", "1,234,567", "bigint", "out", "of", "range", "2", "2025-01-02", "03:04:05"]
    assert rows[0].split() == first
    # A letter without a page shows its bytes, and no number.
    assert rows[1].split()[:6] == ["2", r"'\xff\x1b[31m{'", "It", "is", "no", "batch."]
    code, screen = await fourways.shows("discard", "--all")
    assert (code, screen.splitlines()) == (0, [f"Dead letter {letter} is discarded." for letter in range(1, 402)])
    assert (await left(sql), await stored(sql)) == ([], {})


async def test_a_page_is_shown_literally_and_cannot_control_the_terminal(
    fourways: CommandLine, sql: asyncpg.Connection
) -> None:
    letters = {await dead(sql, page): shown for page, shown in NASTY.items()}
    code, screen = await fourways.shows("list")
    assert code == 0
    assert len(screen.splitlines()) == 1 + len(letters)
    for letter, shown in letters.items():
        assert re.search(rf"^ *{letter}  +{re.escape(shown)}  +3 ", screen, re.MULTILINE), (shown, screen)
    code, replayed = await fourways.shows("replay", "--all")
    assert code == 0
    assert replayed.splitlines() == [
        f"Dead letter {letter}: 3 views of {shown} are counted." for letter, shown in letters.items()
    ]
    for printed in (screen, replayed):
        assert [letter for letter in printed if letter != "\n" and not letter.isprintable()] == []
    assert await stored(sql) == dict.fromkeys(NASTY, 3)


async def test_a_long_page_is_shown_in_full(fourways: CommandLine, sql: asyncpg.Connection) -> None:
    page = "".join(f"/{number}" for number in range(400))
    await dead(sql, page)
    code, screen = await fourways.shows("list", COLUMNS="80")
    head, *lines = screen.splitlines()
    column = slice(head.index("page"), head.index("views"))
    # The page is complete, wherever it is broken into lines.
    assert (code, "".join(line[column].strip() for line in lines)) == (0, page), screen


async def test_replay_counts_the_named_letters_and_reports_a_missing_one(
    fourways: CommandLine, client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    for page, delta in (("home", 1), ("news", 2_000), ("home", 4), ("docs", 8)):
        await dead(sql, page, delta)
    for page in ("home", "news"):  # This caches the totals.
        assert (await client.get(f"/page-views/{page}")).json()["views"] == 0
    code, screen = await fourways.says("replay", "1", "2", "7", "3")
    assert (code, sorted(screen.splitlines())) == (
        1,
        [
            "Dead letter 1: 1 views of home are counted.",
            "Dead letter 2: 2,000 views of news are counted.",
            "Dead letter 3: 4 views of home are counted.",
            "There is no dead letter 7.",
        ],
    )
    assert (await stored(sql), await left(sql)) == ({"home": 5, "news": 2000}, [4])

    # The relay of a serving instance drops the cached totals.
    async def is_seen() -> bool:
        return [(await client.get(f"/page-views/{page}")).json()["views"] for page in ("home", "news")] == [5, 2000]

    await eventually(is_seen)


async def test_replay_without_redis_counts_all_letters_that_can_be_counted(
    fourways: CommandLine, sql: asyncpg.Connection
) -> None:
    for page in ("home", "refused", None, "news"):
        await dead(sql, page, None if page is None else 3)
    await sql.execute("ALTER TABLE page_views ADD CONSTRAINT refused CHECK (page <> 'refused')")
    try:
        code, screen = await fourways.says("replay", "--all", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    finally:
        await sql.execute("ALTER TABLE page_views DROP CONSTRAINT refused")
    assert (code, sorted(screen.splitlines())) == (
        1,
        [
            "Dead letter 1: 3 views of home are counted.",
            f"Dead letter 2 is still refused: {REFUSED}",
            "Dead letter 3 holds no views that can be counted; it can only be discarded.",
            "Dead letter 4: 3 views of news are counted.",
        ],
    )
    assert (await stored(sql), await left(sql)) == ({"home": 3, "news": 3}, [2, 3])


async def test_discard_removes_the_named_letters_and_reports_a_missing_one(
    fourways: CommandLine, sql: asyncpg.Connection
) -> None:
    for page in ("home", None, "news"):
        await dead(sql, page)
    code, screen = await fourways.says("discard", "1", "7", "2")
    assert (code, sorted(screen.splitlines())) == (
        1,
        ["Dead letter 1 is discarded.", "Dead letter 2 is discarded.", "There is no dead letter 7."],
    )
    assert (await left(sql), await stored(sql)) == ([3], {})


async def test_a_command_with_neither_ids_nor_all_or_with_both_does_nothing(
    fourways: CommandLine, sql: asyncpg.Connection
) -> None:
    letter = await dead(sql)
    for arguments in (("replay",), ("replay", str(letter), "--all"), ("discard",)):
        code, screen = await fourways.says(*arguments)
        assert (code, "Name the ids of dead letters, or --all of them." in screen) == (2, True), screen
    assert (await left(sql), await stored(sql)) == ([letter], {})


async def test_an_invalid_id_is_refused_and_nothing_is_done(fourways: CommandLine, sql: asyncpg.Connection) -> None:
    letter = str(await dead(sql))
    for arguments in (("discard", letter, "0"), ("replay", letter, "abc")):
        code, screen = await fourways.says(*arguments)
        assert (code, "Invalid value for " in screen) == (2, True), screen
    assert (await left(sql), await stored(sql)) == ([1], {})


async def test_an_id_that_is_too_large_is_refused(fourways: CommandLine) -> None:
    for command in ("discard", "replay"):
        code, screen = await fourways.says(command, str(2**63))
        assert (code, "Invalid value for " in screen) == (2, True), screen


async def test_replay_all_says_that_there_are_no_dead_letters(fourways: CommandLine) -> None:
    assert await fourways.says("replay", "--all") == (0, "There are no dead letters.\n")


async def test_a_command_reports_that_its_database_is_away(fourways: CommandLine) -> None:
    nowhere = f"postgresql://127.0.0.1:{free_port()}/fourways"
    for arguments in (("list",), ("replay", "1")):
        assert await fourways.says(*arguments, DATABASE_URL=nowhere) == (1, "The database refuses connections.\n")


async def test_a_command_without_running_servers_says_what_to_start(fourways: CommandLine) -> None:
    code, screen = await fourways.says("list", REDIS_URL="", DATABASE_URL="")
    assert (code, screen.startswith("Nothing runs in "), "make run" in screen) == (1, True, True), screen

"""The pages of the documentation: their commands work, the things they name exist, and their lists are complete."""

import ast
import asyncio
import os
import re
import shlex
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from app import cli
from app.demo import add_demo_data
from app.embedded import Endpoints
from app.embedded.binaries import postgres_install, redis_program
from app.routers.examples import EXAMPLES
from app.routers.problems import STATUSES
from tests.conftest import empty
from tests.page import Block, Page, commands, pages
from tests.service import FOURWAYS, REPOSITORY, Service, serving

PAGES = {page.name: page for page in pages(REPOSITORY)}
ELSEWHERE = {
    ("CONTRIBUTING.md", "Stage a race"): (
        "tests/users/test_service.py::test_a_slow_reader_does_not_bring_the_old_row_back"
    ),
    ("CONTRIBUTING.md", "With a fault proxy"): (
        "tests/outages/test_rot.py::test_a_fill_that_arrives_after_a_write_was_answered_is_not_kept"
    ),
    **{
        ("docs/add-a-resource.md", step): (
            "tests/test_add_a_resource.py::test_a_fifth_resource_added_by_the_page_is_coherent"
        )
        for step in (
            "1. The model",
            "2. The store",
            "3. The service",
            "4. The migration",
            "5. The router",
            "6. The wiring",
            "7. The proof",
        )
    },
    ("docs/adopt.md", "Cache-aside on a table of your own"): (
        "tests/caching/test_copied.py::test_the_program_of_the_docs_runs_with_three_packages"
    ),
    ("docs/adopt.md", "Write-behind on a counter of your own"): (
        "tests/caching/test_copied.py::test_the_likes_program_of_the_docs_counts_in_both_stores"
    ),
    ("docs/lab.md", "Compare the strategies"): (
        "tests/lab/commands/test_compare.py::test_the_table_names_every_strategy_and_what_each_column_tests"
    ),
    ("docs/lab.md", "Explore the races"): (
        "tests/lab/commands/test_races.py::test_a_failure_is_shown_as_a_timeline_and_a_pass_as_one_line"
    ),
    ("docs/lab.md", "Ask for advice"): "tests/lab/commands/test_advise.py::test_the_flags_are_the_needs",
    ("docs/operate.md", "On your own servers"): (
        "tests/test_serving.py::test_migrations_and_the_service_run_on_separately_started_stores"
    ),
    **{
        ("docs/operate.md", heading): (
            "tests/maintenance/test_backup.py::"
            "test_nothing_is_stale_after_a_dump_took_the_place_of_the_database_and_no_recent_view_is_lost"
        )
        for heading in ("Back up", "Restore")
    },
    ("docs/operate.md", "Least privilege"): "tests/test_grants.py::test_the_printed_grants_are_piped_to_psql",
    ("docs/operate.md", "Logs"): "tests/test_log_lines.py::test_lines_look_as_the_docs_show",
    ("docs/operate.md", "Dead letters"): (
        "tests/test_dead_letters.py::test_replay_counts_the_named_letters_and_reports_a_missing_one"
    ),
}
"""Blocks that another test runs, by page and heading, with the name of that test."""
MARKS = 17
"""Number of blocks that are not run, and say why. It is pinned so that a new one is noticed."""
LONGEST_README = 150
SUMMED_UP = (
    "requests/s at 64 connections, times FastAPI + GET",
    "requests/s at 64 connections, times cashews",
    "POST /page-views/{page}, times FastAPI + MULTI",
    "POST /page-views/{page}, times FastAPI + upsert",
    "p99, ms beyond the load's 120",
)
"""The rows of the tables that the summary at the top of docs/performance.md repeats."""
KIND_AT = {"problem": 1, "described": 2}
"""Functions that make a problem, or its example, and the position of their argument for the type."""
SOON = 10.0
"""Seconds until a read must return what the page shows. Some reads must wait for a flush or a poll of the outbox."""
NEWER_THAN_CURL_7_74 = re.compile(
    r" (--(?:aws-sigv4|ca-native|create-file-mode|ech|expand-[\w-]+|fail-with-body|follow|form-escape|http3-only|json"
    r"|no-clobber|out-null|rate|remove-on-error|skip-existing|trace-config|trace-ids|url-query|variable))\b|(%header\{)"
)
"""What some distributions' curl does not know. `--json` came with 7.82."""
MAKE = """#!/bin/sh
# What make would do, without its environment.
case "$1" in
  psql) exec "{psql}" -d "{database}" ;;
  redis-cli) exec "{redis_cli}" -s "{redis}" ;;
esac
exit 2
"""


def _is_run_here(page: Page, block: Block) -> bool:
    return block.language == "console" and block.mark is None and (page.name, block.heading) not in ELSEWHERE


def test_each_block_is_run_or_says_why_it_is_not() -> None:
    marks, elsewhere = 0, set()
    for page in PAGES.values():
        assert page.indented == [], f"{page.name} has a code block without a fence."
        for block in page.blocks:
            where = (page.name, block.heading)
            is_run = where in ELSEWHERE or _is_run_here(page, block)
            assert is_run or block.mark, f"{where}: line {block.line} is not run."
            assert not (block.mark and where in ELSEWHERE), f"{where} is run elsewhere, and is marked as not run."
            marks += block.mark is not None
            elsewhere.add(where)
    assert elsewhere >= ELSEWHERE.keys()
    assert marks == MARKS


@pytest.mark.parametrize(("where", "test"), ELSEWHERE.items(), ids=[f"{page}-{at}" for page, at in ELSEWHERE])
def test_each_block_that_is_run_elsewhere_names_an_existing_test(where: tuple[str, str], test: str) -> None:
    name, heading = where
    file, _, function = test.partition("::")
    code = (REPOSITORY / file).read_text()
    assert re.search(rf"^(async )?def {function}\(", code, re.MULTILINE)
    if name == "CONTRIBUTING.md":  # Its blocks are parts of the tests.
        (block,) = (block for block in PAGES[name].blocks if block.heading == heading)
        assert block.text in code


def test_the_command_line_accepts_each_command_of_a_page() -> None:
    blocks = [block for page in PAGES.values() for block in page.blocks if block.language == "console"]
    typed = [each.typed for block in blocks for each in commands(block)]
    typed = [line for line in typed if re.match(r"(\.venv/bin/)?fourways ", line)]
    assert typed
    for line in typed:
        # An unknown option fails before --help takes effect.
        result = CliRunner().invoke(cli.commands, [*shlex.split(line, comments=True)[1:], "--help"])
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_make_has_each_target_that_a_page_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES.values():
        named = re.findall(r"(?:`|\$ |\| )make ([a-z-]+)", page.text)
        assert set(named) <= targets, f"{page.name} names {named}."


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_curl_command_of_a_page_works_with_curl_7_74(page: Page) -> None:
    for line in re.findall(r"\bcurl (?:.*\\\n)*.*", page.text):
        assert NEWER_THAN_CURL_7_74.search(line) is None, f"{page.name}: {line}"


def test_the_summary_of_the_figures_matches_the_tables() -> None:
    text = PAGES["docs/performance.md"].text
    summary = text.partition("\n## ")[0]
    for row in SUMMED_UP:
        median = re.search(rf"^\| {re.escape(row)} \| [\d.]+ / ([\d.]+) /", text, re.MULTILINE)
        assert median is not None, row
        said = f"{120 + float(median[1]):.0f} ms" if "120" in row else f"{float(median[1]):.2g} times"
        assert said in summary, f"{row}: {said}"


def test_the_changelog_says_what_each_revision_of_the_schema_adds() -> None:
    revisions = sorted(path.name[:4] for path in (REPOSITORY / "migrations/versions").glob("*.py"))
    listed = re.findall(r"^\| (\d{4}) \|", PAGES["CHANGELOG.md"].text, re.MULTILINE)
    assert listed == [revision for revision in revisions if revision > "0003"]


def test_the_readme_can_be_read_in_a_few_minutes() -> None:
    assert len(PAGES["README.md"].lines) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_link_has_an_existing_target(page: Page) -> None:
    for text, target in page.links:
        path, _, anchor = target.partition("#")
        found = (page.path.parent / path).resolve() if path else page.path
        assert found.exists(), f"{page.name} links to {target}."
        assert found.is_relative_to(REPOSITORY)
        if anchor:
            assert anchor in PAGES[os.path.relpath(found, REPOSITORY)].anchors, f"{page.name} links to {target}."
        elif text.startswith("`") and "." in text:
            assert str(found).endswith(text.strip("`/")), f"{page.name} calls {target} {text}."


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_named_test_or_method_is_in_a_file_that_the_same_passage_links(page: Page) -> None:
    for passage in page.passages:
        files = [page.path.parent / path for path in re.findall(r"\]\(([^)#\s]+\.py)\)", passage)]
        code = "\n".join(file.read_text() for file in files)
        for owner, method in re.findall(r"`(?:([A-Z]\w+)\.)?(test_\w+|(?<=\.)\w+)`", passage):
            assert re.search(rf"def {method}\(", code), f"{page.name} names {method}, in: {passage}"
            assert not owner or re.search(rf"^class {owner}\b", code, re.MULTILINE), f"{page.name} names {owner}."


def test_pages_that_the_code_names_exist() -> None:
    others = ("Makefile", "docker-compose.yml", "docker-compose.cluster.yml", ".env.example", "docs/alerts.yml")
    for file in _sources("app", "migrations", "tests", *others):
        for name in re.findall(r"\b(?:docs/[\w/]+\.(?:md|yml)|[A-Z]{4,}\.md)\b", file.read_text()):
            assert (REPOSITORY / name).exists(), f"{file} speaks of {name}."


def _sources(*names: str) -> Iterator[Path]:
    for path in (REPOSITORY / name for name in names):
        yield from path.rglob("*.py") if path.is_dir() else (path,)


def test_the_page_of_errors_lists_exactly_the_problem_types() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", PAGES["docs/errors.md"].text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {(int(status), kind) for kind, status in listed} == _answered()


def _answered() -> set[tuple[int, str]]:
    """Returns the status and the type of each problem: those of the errors that have a handler, and the constants where
    a problem is made."""
    found = set(STATUSES.values()) | {(status, kind) for status, (_, kind, _) in EXAMPLES.items()}
    for file in _sources("app"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in KIND_AT:
                at = KIND_AT[call.func.id]
                match [call.args[0], *call.args[at : at + 1]]:
                    case [ast.Constant(value=int(status)), ast.Constant(value=str(kind))]:
                        found.add((status, kind))
                    case _:
                        assert file.name == "problems.py", f"{file} makes a problem of which nobody knows the type."
    return found


async def test_the_page_for_operators_lists_exactly_the_metrics(client: httpx.AsyncClient) -> None:
    there = set(re.findall(r"^# TYPE (fourways_\w+) ", (await client.get("/metrics")).text, re.MULTILINE))
    listed = re.findall(r"^\| `(fourways_\w+)", PAGES["docs/operate.md"].text, re.MULTILINE)
    assert set(listed) == {name for name in there if not name.endswith("_created")}


async def test_the_page_for_operators_names_each_part_of_readiness(client: httpx.AsyncClient) -> None:
    table = "\n".join(line for line in PAGES["docs/operate.md"].lines if line.startswith("| "))
    parts = (await client.get("/health/ready")).json()["parts"]
    assert [part for part in parts if part not in ("redis", "postgres") and f"`{part}`" not in table] == []


@pytest.fixture(scope="module")
async def service(servers: Endpoints) -> AsyncIterator[Service]:
    """The service with its demo data: one for all pages, as for a reader."""
    await empty(servers)
    await add_demo_data(servers.database_url)
    async with serving(servers.redis_url, servers.database_url, command=FOURWAYS) as service:
        yield service


@pytest.fixture
def programs(servers: Endpoints, tmp_path: Path) -> Path:
    """A folder with a `make` that runs the commands of the pages."""
    programs = {"psql": postgres_install() / "bin" / "psql", "redis_cli": redis_program("cli")}
    stores = {"database": servers.database_url, "redis": unquote(urlsplit(servers.redis_url).path)}
    make = tmp_path / "make"
    make.write_text(MAKE.format(**programs, **stores))
    make.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="The pages speak of curl.")
@pytest.mark.parametrize(
    "name", [name for name, page in PAGES.items() if any(_is_run_here(page, block) for block in page.blocks)]
)
async def test_each_command_of_a_page_prints_what_the_page_shows(name: str, service: Service, programs: Path) -> None:
    """`...` stands for anything, and blanks are ignored."""
    page = PAGES[name]
    for block in page.blocks:
        for command in commands(block) if _is_run_here(page, block) else ():
            typed = command.typed.replace("localhost:8000", service.url.removeprefix("http://"))
            expected = ".*".join(map(re.escape, _without_blanks(command.said).split("...")))
            deadline = time.monotonic() + (0 if _writes(typed) else SOON)
            said = await _typed(typed, programs)
            while not re.fullmatch(expected, _without_blanks(said)) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                said = await _typed(typed, programs)
            assert re.fullmatch(expected, _without_blanks(said)), f"{name}, below line {block.line}: {typed}\n{said}"


def _writes(typed: str) -> bool:
    """Returns whether a repetition would change something. The test repeats only reads, which may come too early."""
    return re.search(r" -s?Z?X |-X POST|make psql", typed) is not None


def _without_blanks(text: str) -> str:
    return re.sub(r"\s+", "", text)


async def _typed(command: str, programs: Path) -> str:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=PIPE, stderr=PIPE, env={**os.environ, "PATH": path}
    )
    out, err = await shell.communicate()
    return (out + err).decode()

"""`fourways lab compare`, as a person runs it."""

import contextlib
import gzip
import io
import json
import os
import re
import signal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from typer.testing import CliRunner

from app.lab.commands import compare, lab
from app.lab.comparison.claims import COLUMNS, TABLE_OF_FOUR
from app.lab.comparison.contestant import CONTESTANTS
from app.lab.comparison.entrant import PREFIX
from tests.eventually import eventually
from tests.lab.commands import command
from tests.lab.commands.command import with_its_servers
from tests.terminal import terminal

SMALL = ("--workload", "ycsb-a", "--requests", "60", "--keys", "10", "--quick")


def run(*arguments: str) -> tuple[int, str, str]:
    """Runs `fourways lab compare` with these arguments."""
    return command.run("compare", *arguments)


@pytest.mark.usefixtures("played_once")
def test_the_table_names_every_strategy_and_what_each_column_tests() -> None:
    code, printed, _complaints = run(*SMALL)
    assert code == 0
    for contestant in CONTESTANTS:
        assert contestant.name in printed
    for column in COLUMNS:
        assert column.claim in printed
    for words in TABLE_OF_FOUR:
        assert re.search(rf"{words.strategy} +{words.stale_risk} .* {words.write_latency}", printed)


@pytest.mark.usefixtures("stores")
def test_only_json_is_printed() -> None:
    code, printed, _complaints = run(*SMALL, "--json")
    assert code == 0
    answer = json.loads(printed)
    assert answer["trace"]["reads"] + answer["trace"]["writes"] == answer["replayed"]["operations"] == 60
    assert answer["replayed"]["complete"] is True
    assert [strategy["name"] for strategy in answer["strategies"]] == [each.name for each in CONTESTANTS]
    for strategy in answer["strategies"]:
        assert strategy["kind"] in ("none", "ours", "published", "repaired")
        assert strategy["reads"] + strategy["writes"] == 60
        assert {"hit_ratio", "database_reads", "database_writes", "redis_round_trips", "redis_bytes"} <= strategy.keys()
        assert {"p50", "p99", "p999"} <= strategy["read_ms"].keys()
        assert {
            "stale_reads",
            "longest_stale_ms",
            "uncommitted_reads",
            "lost_writes",
            "doubled_writes",
        } <= strategy.keys()


class Links(HTMLParser):
    """What a page would fetch, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.elements: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.fetched += [str(value) for name, value in attributes if name in ("src", "href")]


@pytest.mark.usefixtures("stores")
def test_the_page_is_self_contained(tmp_path: Path) -> None:
    trace = tmp_path / "<b>.csv"
    trace.write_text("op,key\nread,a\nwrite,a\nread,b\n")
    code, _printed, _complaints = run("--trace", str(trace), "--quick", "--html", str(tmp_path / "page.html"))
    assert code == 0
    text = (tmp_path / "page.html").read_text()
    links = Links()
    links.feed(text)
    assert links.fetched == []
    assert "script" not in links.elements
    assert links.elements.count("svg") == 4
    assert "b" not in links.elements
    assert "http" not in text
    assert "$" not in text
    for words in TABLE_OF_FOUR:
        assert words.reads_from in text
        assert words.complexity in text


@pytest.mark.usefixtures("stores")
def test_a_trace_is_counted_whole_when_only_its_first_part_is_played(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(gzip.compress(b"op,key\n" + b"read,a\nwrite,b\n" * 50))
    _code, printed, _complaints = run("--trace", str(trace), "--requests", "10", "--quick", "--json")
    answer = json.loads(printed)
    assert (answer["trace"]["reads"], answer["trace"]["writes"], answer["trace"]["keys"]) == (50, 50, 2)
    assert (answer["replayed"]["reads"], answer["replayed"]["writes"], answer["replayed"]["keys"]) == (5, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Name a --trace or a --workload."),
        (("--trace", "a", "--workload", "ycsb-a"), "Name a --trace or a --workload."),
        (("--workload", "ycsb-z"), "There is no workload 'ycsb-z'."),
        (("--workload", "ycsb-a", "--ratio", "much"), "much"),
        (("--workload", "ycsb-a", "--warm-up", "4000"), "A warm-up of 4,000 leaves nothing of 4,000 requests"),
        (("--trace", "a", "--keys", "7"), "--keys, --alpha and --ratio are of a --workload"),
        (("--workload", "ycsb-a", "--html", "/nowhere/page.html"), "There is no directory /nowhere for page.html."),
        (("--trace", "/nowhere/trace"), "/nowhere/trace"),
    ],
)
@pytest.mark.usefixtures("stores")
def test_invalid_arguments_are_refused_in_one_sentence(arguments: tuple[str, ...], complaint: str) -> None:
    code, printed, complaints = run(*arguments)
    assert code in (1, 2)
    assert complaint in complaints
    assert "Traceback" not in complaints
    assert printed == ""


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02" * 100, b"colour,size\nred,7\n"])
@pytest.mark.usefixtures("stores")
def test_a_bad_trace_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(content)
    code, printed, complaints = run("--trace", str(trace))
    assert code == 1
    assert complaints.strip().endswith(".")
    assert printed == ""


def _sockets(directory: Path) -> list[str]:
    """Returns the sockets of the command's own Redis."""
    return list(map(str, directory.glob("*/redis/redis.sock")))


async def test_ctrl_c_leaves_a_partial_report_and_no_server_behind(directory: Path) -> None:
    async def plays() -> bool:
        for socket in _sockets(directory):
            with contextlib.suppress(RedisError):  # It is still starting.
                async with Redis(unix_socket_path=socket) as redis:
                    return bool([key async for key in redis.scan_iter(match=f"{PREFIX}replay:*", count=1_000)])
        return False

    command = ("fourways", "lab", "compare", "--workload", "ycsb-b", "--requests", "100000", "--quick")
    async with terminal(directory / "screen", *command, TMPDIR=str(directory)) as running:
        await eventually(plays)
        tree = running.tree()
        assert {"redis-server", "postgres"} <= tree.names()
        running.ctrl_c()
        assert await running.code() == 130
        await tree.gone()
    assert "It was interrupted: this is what was measured until then." in running.screen
    assert "cache-aside" in running.screen
    assert "Traceback" not in running.screen
    assert os.listdir(directory) == ["screen"]  # noqa: PTH208  # one check


async def test_on_a_bare_machine_it_starts_its_own_stores_and_removes_them(directory: Path) -> None:
    async with terminal(directory / "screen", "fourways", "lab", "compare", *SMALL, TMPDIR=str(directory)) as running:
        seen = await with_its_servers(running)
        assert await running.code() == 0
        await seen.gone()
    assert "write-behind, dirty keys" in running.screen
    assert os.listdir(directory) == ["screen"]  # noqa: PTH208  # one check


async def test_closing_the_terminal_leaves_no_server(directory: Path) -> None:
    command = ("fourways", "lab", "compare", "--workload", "ycsb-b", "--requests", "100000")
    async with terminal(directory / "screen", *command, TMPDIR=str(directory)) as running:
        seen = await with_its_servers(running)
        running.send(signal.SIGHUP)
        assert await running.code() == 130
        await seen.gone()
    assert os.listdir(directory) == ["screen"]  # noqa: PTH208  # one check


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "play", None)
    code, printed, complaints = run(*SMALL, "--html", str(tmp_path))
    assert (code, printed) == (2, "")
    assert f"{tmp_path} cannot be written: Is a directory." in complaints


def test_checking_that_a_page_can_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.html").write_text("old")
    for name in ("old.html", "new.html"):
        assert run("--trace", "/nowhere/trace", "--html", str(tmp_path / name))[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Only Linux has a disk that is always full.")
@pytest.mark.usefixtures("played_once")
def test_a_full_disk_costs_the_page_but_not_the_table() -> None:
    code, printed, complaints = run(*SMALL, "--html", "/dev/full")
    assert code == 1
    assert "/dev/full cannot be written: No space left on device." in complaints
    assert "write-behind, dirty keys" in printed


@pytest.mark.usefixtures("played_once")
def test_the_page_is_utf_8_whatever_the_machine_prefers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "text_encoding", lambda encoding, level=2: encoding or "latin-1")
    assert run(*SMALL, "--html", str(tmp_path / "page.html"))[0] == 0
    assert "“" in (tmp_path / "page.html").read_bytes().decode("utf-8")


def test_contradictory_options_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("read,a\nwrite,a\n")
    code, _printed, complaints = run("--trace", str(trace), "--warm-up", "2")
    assert (code, complaints.strip()) == (1, "A warm-up of 2 leaves nothing of 2 operations to be billed.")
    code, _printed, complaints = run("--workload", "ycsb-a", "--views")
    assert code == 2
    assert "--views is of a --trace; a workload has its own writes." in complaints


def test_in_a_file_a_complaint_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    result = CliRunner().invoke(lab, ["compare", "--trace", "/nowhere/trace"])
    assert result.stderr == "/nowhere/trace cannot be read: No such file or directory.\n"


@pytest.mark.usefixtures("played_once")
def test_a_terminal_that_cannot_encode_quotation_marks_still_gets_the_table() -> None:
    result = CliRunner(charset="latin-1").invoke(lab, ["compare", *SMALL])
    assert (result.exit_code, result.exception) == (0, None)
    assert b"write latency ?None added?" in result.stdout_bytes

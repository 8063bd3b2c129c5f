"""`fourways lab advise`, as a person runs it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.advice import Choice, Needs
from app.lab.commands import advise
from app.lab.comparison.bill import Bill
from tests.lab.commands.command import run
from tests.lab.comparison.bills import compared
from tests.service import Service, free_port

NEVER = ("--stale", "never", "--loss", "nothing")


def test_the_answer_has_the_strategy_the_reasons_and_the_certainty() -> None:
    code, printed, _complaints = run(
        "advise", "--stale", "60", "--loss", "dashboard", "--reads", "900", "--writes", "900"
    )
    assert code == 0
    assert printed.startswith("cache-aside, TTL only\n- Can reads tolerate stale data? Yes.")
    told = " ".join(printed.split())
    assert "What is the read-to-write ratio? Writes dominate, or are near parity. The article: write-behind, or" in told
    assert "- What happens if the data in the cache is lost? A dashboard is stale for half a minute." in told
    assert "How sure: high. Of 1,800 operations 50.0% write" in told


@pytest.mark.parametrize(
    ("needs", "reads", "strategy"),
    [
        (("--stale", "any", "--loss", "nothing"), 900, "cache-aside"),
        (("--stale", "never", "--loss", "nothing"), 50, "cache-aside"),
        (("--stale", "0", "--loss", "revenue"), 50, "write-through"),
        (("--stale", "0.5", "--loss", "nothing"), 50, "cache-aside"),
        (("--stale", "any", "--loss", "data", "--counts"), 50, "write-behind"),
        (("--stale", "any", "--loss", "revenue", "--counts"), 50, "cache-aside, TTL only"),
    ],
)
def test_the_flags_are_the_needs(needs: tuple[str, ...], reads: int, strategy: str) -> None:
    code, printed, _complaints = run("advise", *needs, "--reads", str(reads), "--writes", "50", "--json")
    assert (code, json.loads(printed)["strategy"], json.loads(printed)["bill"]) == (0, strategy, None)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Three reads to five writes of two keys."""
    path = tmp_path / "trace.csv"
    path.write_text("op,key\n" + "read,a\nwrite,a\nwrite,b\nread,b\nwrite,a\nwrite,a\nread,a\nwrite,b\n" * 30)
    return path


@pytest.mark.usefixtures("stores")
def test_with_a_trace_the_alternatives_are_measured(trace: Path) -> None:
    code, printed, _complaints = run("advise", *NEVER, "--counts", "--trace", str(trace), "--json")
    answer = json.loads(printed)
    assert (code, answer["strategy"]) == (0, "write-behind")
    assert answer["needs"] == {"stale_seconds": 0, "loss": "nothing", "counts": True}
    assert answer["traffic"] == {"reads": 90, "writes": 150, "keys": 2}
    bill = answer["bill"]
    assert bill["complete"] is True
    assert {strategy["name"] for strategy in bill["strategies"]} == {"no cache", *Choice}
    # The warm-up is not billed.
    assert {strategy["reads"] + strategy["writes"] for strategy in bill["strategies"]} == {180}
    assert bill["best"] in answer["meets"]


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        ("cache-aside", "By the bill it is cache-aside, too."),
        ("read-through", "The tree and the bill differ: by the bill it is read-through."),
        (None, "By the bill none of them is to be had"),
    ],
)
@pytest.mark.usefixtures("played_once")
def test_it_says_whether_the_tree_and_the_bill_differ(
    trace: Path, best: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a machine on which one strategy is a thousand times as fast as the others, or none meets the needs."""

    def picked(needs: Needs, bills: Sequence[Bill]) -> Bill | None:
        named = {bill.name: bill for bill in bills}
        return None if best is None else named.get(best)

    monkeypatch.setattr(advise, "pick", picked)
    code, printed, _complaints = run("advise", *NEVER, "--trace", str(trace))
    assert code == 0
    assert sentence in " ".join(printed.split())
    assert "The bill of the alternatives, for 240 operations of trace.csv:" in printed
    for name in ("no cache", *Choice):
        assert f"\n {name} " in printed


def test_without_a_bill_no_store_is_needed(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere")
    code, printed, _complaints = run("advise", *NEVER, "--trace", str(trace), "--no-bill", "--json")
    assert (code, json.loads(printed)["strategy"], json.loads(printed)["bill"]) == (0, "cache-aside", None)
    code, printed, complaints = run("advise", *NEVER, "--trace", str(trace), "--json")
    assert (code, printed) == (1, "")
    assert "Traceback" not in complaints


async def test_a_running_service_gets_advice_for_each_resource(three_workers: Service) -> None:
    async with three_workers.client() as client:
        for _ in range(20):
            await client.get("/users/1")
        for delta in range(3):
            await client.put(f"/inventory/A-{delta}", json={"quantity": 3})
        await client.post("/page-views/home", json={"count": 30})
    code, printed, _complaints = run("advise", "--metrics", f"{three_workers.url}/metrics", "--json")
    assert code == 0
    users, products, inventory, views = json.loads(printed).values()
    assert (users["suggested"], users["reads"], users["writes"]) == ("cache-aside", 20, 0)
    assert (products["configured"], products["suggested"]) == ("read-through", "cache-aside")
    assert "The two cost the same" in products["verdict"]
    assert (inventory["suggested"], inventory["writes"], inventory["sure"]) == ("write-through", 3, "high")
    assert (views["suggested"], views["writes"], views["loss"]) == ("write-behind", 30, "dashboard")
    # The command and the service say the same, as long as nothing has happened since.
    async with three_workers.client() as client:
        live = {each["resource"]: each["advice"] for each in (await client.get("/strategies")).json()}
    assert json.loads(printed) == live
    code, printed, _complaints = run("advise", "--metrics", f"{three_workers.url}/metrics")
    assert "/inventory: write-through\nConfigured is write-through. What is configured is what is suggested." in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Name the traffic: --reads and --writes, a --trace, a --workload, or --metrics."),
        (("--reads", "1"), "--reads and --writes go together."),
        (("--reads", "1", "--writes", "1", "--workload", "ycsb-a"), "Name the traffic:"),
        (("--reads", "1", "--writes", "1"), "Say what the data must have: --stale SECONDS, any or never"),
        (("--reads", "-1", "--writes", "1"), "should be greater than or equal to 0"),
        (("--reads", "1", "--writes", "1", "--stale", "soon", "--loss", "data"), "and not 'soon'."),
        (("--reads", "1", "--writes", "1", "--stale", "-1", "--loss", "data"), "and not '-1'."),
        (("--reads", "1", "--writes", "1", "--stale", "nan", "--loss", "data"), "and not 'nan'."),
        (("--reads", "1", "--writes", "1", "--stale", "any", "--loss", "much"), "'much' is not one of"),
        (("--workload", "ycsb-z", *NEVER), "There is no workload 'ycsb-z'."),
        (("--trace", "/nowhere/trace", *NEVER), "/nowhere/trace"),
        (("--metrics", "http://127.0.0.1:1/metrics", *NEVER), "leave --stale, --loss, --counts out."),
        (("--metrics", "http://127.0.0.1:1/metrics"), "http://127.0.0.1:1/metrics does not answer: "),
        (("--metrics", "127.0.0.1:8000"), "is no address of /metrics, such as http://127.0.0.1:8000/metrics."),
    ],
)
def test_an_unanswerable_request_is_refused_in_one_sentence(arguments: tuple[str, ...], complaint: str) -> None:
    code, printed, complaints = run("advise", *arguments)
    assert code in (1, 2)
    assert complaint in complaints
    assert "Traceback" not in complaints
    assert printed == ""


def test_a_remark_says_when_no_cache_was_the_fastest() -> None:
    comparison = compared()
    plain, second, *_others = comparison.bills
    assert plain.cost < second.cost
    told = advise.without_a_cache(advise.Billed(comparison, second))
    assert told.startswith("No cache at all took less time than cache-aside: this database is on the same machine")
    assert advise.without_a_cache(advise.Billed(comparison, plain)) == ""
    assert advise.without_a_cache(advise.Billed(comparison, None)) == ""

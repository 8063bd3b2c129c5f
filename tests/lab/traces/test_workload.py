"""Workloads do what their recipes say, and are the same for the same seed."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest

from app.lab.traces.operation import Kind, Operation
from app.lab.traces.workload import WORKLOADS, WorkloadError, make, share_of_reads
from app.lab.traces.zipf import Zipf
from tests.service import REPOSITORY

SPECS = REPOSITORY.parent / "shared" / "data" / "ycsb"
READ, WRITE = Kind.READ, Kind.WRITE
REQUESTS = 20_000


def _numbers(operations: Sequence[Operation], kind: Kind) -> list[int]:
    return [_number(operation) for operation in operations if operation.kind is kind]


def _number(operation: Operation) -> int:
    return int(operation.key.lstrip("abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_has_its_declared_share_of_reads(name: str) -> None:
    trace = make(name, requests=REQUESTS)
    assert (len(trace.operations), trace.length, trace.whole, trace.exact) == (REQUESTS, REQUESTS, True, True)
    assert trace.reads == sum(operation.kind is READ for operation in trace.operations)
    assert trace.keys == len({operation.key for operation in trace.operations})
    assert trace.reads / REQUESTS == pytest.approx(WORKLOADS[name].reads, abs=0.01)
    assert WORKLOADS[name].description.endswith(".")


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("reads", [0.6, pytest.param(0.9, marks=pytest.mark.prove)])
def test_the_share_of_reads_can_be_set(name: str, reads: float) -> None:
    trace = make(name, requests=4 * REQUESTS, reads=reads)
    # The scans of E are few and long, so its share varies more.
    assert trace.reads / trace.length == pytest.approx(reads, abs=0.03 if name == "ycsb-e" else 0.01)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_makes_the_same_operations(name: str) -> None:
    assert make(name, requests=500, seed=7) == make(name, requests=500, seed=7)
    assert make(name, requests=500, seed=7) != make(name, requests=500, seed=8) or name == "catalogue"


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_longer_trace_begins_like_a_shorter_one(name: str) -> None:
    if name not in ("catalogue", "batch-import"):  # They depend on the number of requests.
        assert make(name, requests=900).operations[:300] == make(name, requests=300).operations


@pytest.mark.skipif(not SPECS.is_dir(), reason=f"The specifications are not here: {SPECS} does not exist.")
@pytest.mark.parametrize("letter", "abcdef")
def test_the_workloads_of_ycsb_have_the_proportions_of_its_files(letter: str) -> None:
    spec = dict(re.findall(r"^(\w+)=(\S+)$", (SPECS / f"workload{letter}.spec").read_text(), re.MULTILINE))
    reads, updates, scans, inserts, changes = (
        float(spec.get(f"{name}proportion", 0)) for name in ("read", "update", "scan", "insert", "readmodifywrite")
    )
    mean = (1 + int(spec.get("maxscanlength", 1))) / 2
    share = (reads + scans * mean + changes) / (reads + scans * mean + 2 * changes + updates + inserts)
    assert WORKLOADS[f"ycsb-{letter}"].reads == pytest.approx(share)

    added = {_number(operation) for operation in make(f"ycsb-{letter}", requests=REQUESTS).operations} - set(
        range(1_000)
    )
    assert bool(added) is bool(inserts)


def test_ycsb_spreads_the_popular_rows_as_its_own_generator_does() -> None:
    trace = make("ycsb-c", requests=100_000, keys=1_000)
    (first, most), (second, less) = Counter(trace.operations).most_common(2)
    # The keys of its first two items are user6284781860667377211 and user8517097267634966620.
    assert (first.key, second.key) == ("user211", "user620")
    # It draws from 10^10 items, whose 1 / k^0.99 add up to its constant ZETAN; each row gets a share of the rest, too.
    assert most / 100_000 == pytest.approx(1 / 26.46902820178302, abs=0.003)
    assert less / 100_000 == pytest.approx(0.5**0.99 / 26.46902820178302, abs=0.002)


def test_ycsb_d_reads_the_newest_rows_most() -> None:
    rows, ages = 1_000, []
    for operation in make("ycsb-d", requests=REQUESTS).operations:
        if operation.kind is WRITE:
            assert _number(operation) == rows
            rows += 1
        else:
            ages.append(rows - 1 - _number(operation))
    assert min(ages) == 0
    assert max(ages) < rows
    assert sum(age < 10 for age in ages) / len(ages) == pytest.approx(
        sum(1 / k**0.99 for k in range(1, 11)) / 7.9, abs=0.03
    )


def test_ycsb_e_scans_neighbours() -> None:
    runs = [[-1]]
    for operation in make("ycsb-e", requests=REQUESTS).operations:
        number = _number(operation)
        if operation.kind is READ and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    lengths = [len(run) for run in runs]
    assert max(lengths) <= 200  # Two scans may follow each other.
    assert 30 < sum(lengths) / len(lengths) < 60


def test_ycsb_f_writes_only_what_it_has_just_read() -> None:
    operations = make("ycsb-f", requests=REQUESTS).operations
    pairs = [(before, after) for before, after in pairwise(operations) if after.kind is WRITE]
    assert pairs
    assert all((before.kind, before.key) == (READ, after.key) for before, after in pairs)


@pytest.mark.parametrize(("requests", "writes"), [(1, 1), (100, 1), (4_000, 1), (50_005, 5), (100_010, 10)])
def test_the_catalogue_has_5_writes_in_50_005_and_at_least_one(requests: int, writes: int) -> None:
    assert make("catalogue", requests=requests).writes == writes


def test_a_catalogue_write_comes_between_reads() -> None:
    trace = make("catalogue", requests=4_000)
    assert [place for place, operation in enumerate(trace.operations) if operation.kind is WRITE] == [2_000]


def test_a_batch_import_writes_each_row_once_in_order_and_reads_only_what_it_wrote() -> None:
    trace = make("batch-import", requests=2_000)
    assert _numbers(trace.operations, WRITE) == list(range(trace.writes))
    written = -1
    for operation in trace.operations:
        if operation.kind is WRITE:
            written = _number(operation)
        else:
            assert _number(operation) <= written
    assert 0 < trace.reads < 200


def test_a_second_import_begins_where_the_first_did() -> None:
    trace = make("batch-import", requests=50, keys=20, reads=0)
    assert _numbers(trace.operations, WRITE) == [number % 20 for number in range(50)]


def test_a_flash_sale_comes_in_bursts_on_few_keys() -> None:
    operations = make("flash-sale", requests=REQUESTS).operations
    sale = [operation for place, operation in enumerate(operations) if place % 500 >= 300]
    calm = [operation for place, operation in enumerate(operations) if place % 500 < 300]
    assert sum(_number(operation) < 3 for operation in sale) / len(sale) > 0.9
    assert sum(_number(operation) < 3 for operation in calm) / len(calm) < 0.3
    assert sum(operation.kind is WRITE for operation in sale) / len(sale) == pytest.approx(0.4, abs=0.02)
    assert sum(operation.kind is WRITE for operation in calm) / len(calm) == pytest.approx(0.2 / 3, abs=0.01)


def test_a_counter_storm_writes_few_keys() -> None:
    trace = make("counter-storm", requests=REQUESTS)
    assert trace.keys == 10
    assert trace.writes / trace.length > 0.97


@pytest.mark.parametrize(
    ("items", "alpha"), [(1, 1.0), (10, 0.5), (1_000, 0.0), (1_000, 0.99), (1_000, 1.0), (50, 2.5)]
)
def test_ranks_are_drawn_in_proportion_to_1_over_rank_to_the_alpha(items: int, alpha: float) -> None:
    random, zipf = Random(1), Zipf(items, alpha)
    counts = Counter(zipf.draw(random) for _ in range(50_000))
    weights = [1 / rank**alpha for rank in range(1, items + 1)]
    assert set(counts) <= set(range(items))
    for rank in {0, 1, 9, items - 1} & set(range(items)):
        share = weights[rank] / sum(weights)
        # Five standard deviations, which one draw in a million exceeds.
        assert abs(counts[rank] - 50_000 * share) <= 5 * (50_000 * share * (1 - share)) ** 0.5


def test_alpha_and_keys_can_be_set() -> None:
    steep = make("read-heavy", requests=REQUESTS, keys=100, alpha=2)
    assert steep.keys <= 100
    [(_key, count)] = Counter(operation.key for operation in steep.operations).most_common(1)
    assert count / REQUESTS == pytest.approx(1 / 1.635, abs=0.02)
    assert make("read-heavy", requests=REQUESTS, keys=100, alpha=0).keys == 100


def test_a_ratio_is_parsed_as_people_write_it() -> None:
    assert share_of_reads("95:5") == 0.95
    assert share_of_reads("0:1") == 0
    assert share_of_reads(" 1 : 0.25 ") == 0.8
    for ratio in ("", "95", "95/5", "0:0", "-1:2", "1:2:3", "nan:1", "inf:1"):
        with pytest.raises(WorkloadError, match=re.escape(f"{ratio!r} is no ratio of reads to writes, such as 95:5.")):
            share_of_reads(ratio)


def test_an_impossible_workload_is_refused_in_one_sentence() -> None:
    with pytest.raises(WorkloadError, match=r"There is no workload 'ycsb-g'\. There are ycsb-a, .*, catalogue\."):
        make("ycsb-g", requests=1)
    with pytest.raises(WorkloadError, match=r"0 requests are not between 1 and 10,000,000\."):
        make("ycsb-a", requests=0)
    with pytest.raises(WorkloadError, match=r"-1 keys are not between"):
        make("ycsb-a", requests=1, keys=-1)
    with pytest.raises(WorkloadError, match=r"0 keys are not between"):
        make("ycsb-a", requests=1, keys=0)
    with pytest.raises(WorkloadError, match=r"An alpha of nan is not between 0 and 10\."):
        make("ycsb-a", requests=1, alpha=float("nan"))
    with pytest.raises(WorkloadError, match=r"A share of reads of 0\.4 is not between 0\.5 and 1, as ycsb-f has it\."):
        make("ycsb-f", requests=1, reads=0.4)

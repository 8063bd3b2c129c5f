"""Traces are read correctly: the tests count them again by other means."""

import csv
import gzip
import io
import random
import sys
import tracemalloc
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from app.lab.traces.distinct import Distinct
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.trace import MOST_LINES, Trace, read_trace
from app.lab.traces.trace_error import TraceError
from tests.service import REPOSITORY

DATA = REPOSITORY.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"The real data is not here: {DATA} does not exist.")

READ, WRITE = Kind.READ, Kind.WRITE
LOG = (
    '203.0.113.9 - - [01/Jul/1995:00:00:01 -0400] "GET /history/?a=b#top HTTP/1.0" 200 6245\n'
    '203.0.113.9 - ada lovelace [01/Jul/1995:00:00:03 -0400] "HEAD /index.html HTTP/1.1" 304 -\n'
    '2001:db8::1 - - [01/Jul/1995:04:00:05 +0000] "POST /cart HTTP/2.0" 201 12 "https://example.org/" "curl \\"8\\""\n'
    'example.org:443 203.0.113.9 - - [01/Jul/1995:00:00:06 -0400] "DELETE /cart HTTP/1.1" 204 0 "-" "curl"\n'
)
Write = Callable[[str | bytes], Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    """Writes a trace, whose name says nothing."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def _steps(trace: Trace) -> list[tuple[Kind, str, float | None]]:
    return [(operation.kind, operation.key, operation.at) for operation in trace.operations]


def _column(name: str, *columns: str) -> list[str]:
    """Returns a column of a file of the real data; several are joined by colons."""
    path = DATA / name
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = csv.reader(io.StringIO(text.decode()))
    header = next(rows)
    places = [header.index(column) for column in columns]
    if len(places) == 1:
        return [row[places[0]] for row in rows]
    return [":".join(row[place] for place in places) for row in rows]


def _lru(keys: Sequence[str], share: float) -> float:
    """Returns the hit ratio, in per cent, of a plain LRU that holds this share of the keys."""
    most, hits = int(share * len(set(keys))), 0
    kept: OrderedDict[str, None] = OrderedDict()
    for key in keys:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
        else:
            kept[key] = None
            if len(kept) > most:
                kept.popitem(last=False)
    return 100 * hits / len(keys)


@real
@pytest.mark.parametrize(
    ("name", "key", "kinds", "reads", "writes", "keys", "lru"),
    [
        pytest.param("kv_ecommerce_orm_busy.csv.gz", "key", READ, 1_000_000, 0, 44_178, 85.8, marks=pytest.mark.prove),
        ("kv_recommendations_scarab_a.csv.gz", "key", READ, 400_000, 0, 116_120, 49.7),
        ("kv_readwrite_cloudphysics_hour1.csv.gz", "key", ("op", {"set"}), 22_327, 33_591, 35_117, 18.0),
        ("kv_meta_cachelib_sample_1.csv", "key", ("op", {"SET", "SET_LEASE", "DELETE"}), 88, 11, 52, 30.3),
        ("pageviews_product_pages_2012_12.csv.gz", "page_id", READ, 95_607, 0, 13_756, 68.5),
        ("pageviews_nasa_1995_07_01.csv.gz", "path", ("method", {"POST"}), 9_998, 1, 1_165, 66.9),
        ("pageviews_apache_semicomplete_may17_19.csv.gz", "path", ("method", {"POST"}), 7_417, 4, 1_296, 64.9),
        (
            "writes_wikipedia_edits_2015_09_12_00_16h.csv.gz",
            "project:page",
            ("is_new", {"0", "1"}),
            0,
            19_531,
            18_236,
            5.1,
        ),
        ("orders_online_retail_2010_12__2011_04.csv.gz", "stock_code", WRITE, 0, 171_999, 3_403, 31.6),
        ("shop_events_otto_sample.csv", "article_id", ("type", {"carts", "orders"}), 800, 62, 510, 35.3),
        ("orders_northwind.csv", "product_id", WRITE, 0, 2_155, 77, None),
    ],
)
def test_a_real_trace_has_the_reads_writes_keys_and_counts_of_its_rows(
    name: str,
    key: str,
    kinds: Kind | tuple[str, set[str]],
    reads: int,
    writes: int,
    keys: int,
    lru: float | None,
) -> None:
    trace = read_trace(DATA / name, most=None)
    assert (trace.name, trace.reads, trace.writes, trace.keys) == (name, reads, writes, keys)
    assert (trace.length, trace.exact, trace.whole, trace.skipped) == (reads + writes, True, True, 0)

    named = _column(name, *key.split(":"))
    done = (
        [kinds] * len(named)
        if isinstance(kinds, Kind)
        else [WRITE if op in kinds[1] else READ for op in _column(name, kinds[0])]
    )
    assert [operation.key for operation in trace.operations] == named
    assert [operation.kind for operation in trace.operations] == done
    counts = Counter(operation.key for operation in trace.operations if operation.kind is WRITE)
    assert counts == Counter(key for key, kind in zip(named, done, strict=True) if kind is WRITE)
    if lru is not None:
        assert _lru([operation.key for operation in trace.operations], 0.1) == pytest.approx(lru, abs=0.1)


@real
def test_data_files_that_are_no_traces_are_refused() -> None:
    for name in ("products_northwind.csv", "names_surnames.csv", "twitter_cluster_stats_2020Mar.csv", "README.md"):
        with pytest.raises(
            TraceError, match=r"Line 1: .* has no columns that are known\. Known are a header with key,op;"
        ):
            read_trace(DATA / name, most=10)


@real
@pytest.mark.parametrize(
    ("name", "column", "unit"),
    [
        ("kv_readwrite_cloudphysics_hour1.csv.gz", "t_us", 1e-6),
        ("pageviews_nasa_1995_07_01.csv.gz", "epoch_s", 1),
        ("pageviews_apache_semicomplete_may17_19.csv.gz", "epoch_s", 1),  # Its times go back and forth.
        ("shop_events_otto_sample.csv", "ts_ms", 1e-3),
        ("kv_meta_cachelib_sample_1.csv", "op_time", 1),
    ],
)
def test_the_times_of_a_real_trace_begin_at_0_and_never_go_back(name: str, column: str, unit: float) -> None:
    trace = read_trace(DATA / name, most=None)
    times = [int(time) for time in _column(name, column)]
    latest = times[0]
    for operation, time in zip(trace.operations, times, strict=True):
        latest = max(latest, time)
        assert operation.at == pytest.approx((latest - times[0]) * unit, abs=1e-4)


@real
def test_views_count_as_writes_on_demand() -> None:
    trace = read_trace(DATA / "pageviews_nasa_1995_07_01.csv.gz", most=None, views=True)
    assert (trace.reads, trace.writes) == (0, 9_999)
    counts = Counter(operation.key for operation in trace.operations if operation.kind is WRITE)
    assert counts == Counter(_column("pageviews_nasa_1995_07_01.csv.gz", "path"))


def test_a_trace_in_the_labs_own_format_is_read(file: Write) -> None:
    trace = read_trace(file('op,key,t\nget,a,0.5\nSET,b,1.25\n\nDelete,"c,\nd",2\n'), most=None)
    assert _steps(trace) == [(READ, "a", 0), (WRITE, "b", 0.75), (WRITE, "c,\nd", 1.5)]
    assert (trace.name, trace.reads, trace.writes, trace.keys, trace.length) == ("trace", 1, 2, 3, 3)


@pytest.mark.parametrize("content", ["op,key\nget,a\nset,b\n", "get,a\nset,b\n", "KEY, Op ,size\na,get,1\nb,set,2"])
def test_a_header_may_be_in_any_order_or_missing(file: Write, content: str) -> None:
    assert _steps(read_trace(file(content), most=None)) == [(READ, "a", None), (WRITE, "b", None)]


def test_a_web_servers_log_is_read_common_or_combined(file: Write) -> None:
    trace = read_trace(file(LOG), most=None)
    assert _steps(trace) == [
        (READ, "/history/?a=b", 0),
        (READ, "/index.html", 2),
        (WRITE, "/cart", 4),
        (WRITE, "/cart", 5),
    ]


def test_log_lines_without_a_valid_request_are_skipped_and_counted(file: Write) -> None:
    at = '203.0.113.9 - - [01/Jul/1995:00:00:01 -0400] "{}" 400 0\n'
    strange = ("-", "\\x16\\x03\\x01", "OPTIONS * HTTP/1.1", "GET", "GET /" + 1_024 * "x" + " HTTP/1.1")
    lines = "alyssa.p\n" + LOG + "".join(at.format(request) for request in strange) + at.replace("Jul", "Lip")
    trace = read_trace(file(lines), most=None)
    assert (trace.length, trace.skipped) == (4, 7)


def test_a_path_with_blanks_and_a_request_without_a_version_are_kept_whole(file: Write) -> None:
    at = '203.0.113.9 - - [01/Jul/1995:00:00:01 -0400] "{}" 200 0\n'
    trace = read_trace(file(at.format("GET /my file HTTP/1.0") + at.format("GET /old")), most=None)
    assert [operation.key for operation in trace.operations] == ["/my file", "/old"]


def test_bytes_that_are_not_utf_8_stay_readable(file: Write) -> None:
    line = b'203.0.113.9 - - [01/Jul/1995:00:00:01 -0400] "GET /caf\xe9/\xc3\xa9 HTTP/1.0" 200 1\n'
    assert read_trace(file(line), most=None).operations[0].key == "/caf\\xe9/é"


@pytest.mark.parametrize("ends", [("\r\n",) * 3, ("\r",) * 3, ("\n", "\r\n", "\r")])
def test_line_ends_may_be_mixed_and_a_byte_order_mark_is_ignored(file: Write, ends: tuple[str, str, str]) -> None:
    lines = ("op,key", "get,a", "set,b")
    content = "\ufeff" + "".join(line + end for line, end in zip(lines, ends, strict=True))
    assert _steps(read_trace(file(content), most=None)) == [(READ, "a", None), (WRITE, "b", None)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", ["op,key\nget,a\n" + "set,b\n" * 4_000, LOG])
def test_gzip_is_recognised_by_its_bytes_even_on_standard_input(
    file: Write, monkeypatch: pytest.MonkeyPatch, content: str, packed: bool
) -> None:
    stored = gzip.compress(content.encode()) if packed else content.encode()
    plain = read_trace(file(content), most=None)
    assert read_trace(file(stored), most=None) == plain
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stored)))
    piped = read_trace(Path("-"), most=None)
    assert piped.name == "standard input"
    assert piped.operations == plain.operations


# The contents are part of the test ids, which must be the same in all test workers: so gzip writes no time.
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "The trace is empty."),
        (gzip.compress(b"", mtime=0), "The trace is empty."),
        ("\n\n", "The trace has no operations."),
        ("op,key\n", "The trace has no operations."),
        ("fish,birds\n1,2\n", "Line 1: 'fish,birds' has no columns that are known. Known are"),
        ("just text\n", "Line 1: 'just text' has no columns"),
        ("op,key\nget,a\nfetch,a\n", "Line 3: 'fetch' is no operation that is known, such as get or set."),
        ("op,key\nget,a\n\nget\n", "Line 4: there are 1 columns, and 2 in the header."),
        ("op,key\nget,a,b\n", "Line 2: there are 3 columns, and 2 in the header. A comma in a key needs quotes"),
        ("op,key\nget,\n", "Line 2: the key '' has 0 bytes, and 1 to 1,024 are allowed."),
        (f"op,key\nget,{512 * 'é'}\nget,{512 * 'é'}x\n", "Line 3: the key 'éé"),
        ("op,key,t\nget,a,noon\n", "Line 2: 'noon' is no time."),
        ("op,key,t\nget,a,nan\n", "Line 2: 'nan' is no time."),
        ("stock_code,invoice_no,invoice_date\n1,2,31.12.\n", "Line 2: '31.12.' is no time."),
        ('op,key\nget,"a\nget,b\n', "Line 3 is no CSV: unexpected end of data."),
        (b"op,key\nget,a\0b\n", "This is binary, and not a trace."),
        (b"op,key\n" + 3_000 * b"get,a\n" + b"get,\0\n", "Line 3,002 has a zero byte"),
        (b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(9_999), "This is binary, and not a trace."),
        (
            gzip.compress(gzip.compress(random.Random(1).randbytes(9_999), mtime=0), mtime=0),
            "This is binary, and not a trace.",
        ),
        ("op,key\nget,a\n".encode("utf-16"), "The trace is UTF-16: save it as UTF-8."),
        (gzip.compress(b"op,key\nget,a\n", mtime=0)[:-6], "The gzip file is broken"),
        (b"\x1f\x8bnothing", "The gzip file is broken"),
        ("op,key\nget," + 70_000 * "x", "Line 2 is longer than 65,536 characters."),
    ],
)
def test_a_file_that_is_no_trace_is_refused_in_one_sentence(file: Write, content: str | bytes, complaint: str) -> None:
    with pytest.raises(TraceError) as error:
        read_trace(file(content), most=None)
    assert str(error.value).startswith(complaint), str(error.value)


def test_a_truncated_gzip_file_is_refused_with_its_last_whole_line(file: Write) -> None:
    content = gzip.compress("".join(f"get,{zlib.crc32(str(n).encode())}\n" for n in range(20_000)).encode())
    with pytest.raises(TraceError, match=r"The gzip file is broken after line [1-9]\d*,\d+: "):
        read_trace(file(content[: len(content) // 2]), most=None)


def test_a_missing_file_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere cannot be read: No such file or directory\."):
        read_trace(tmp_path / "nowhere", most=None)
    with pytest.raises(TraceError, match=r"cannot be read: Is a directory\."):
        read_trace(tmp_path, most=None)


def test_the_first_operations_are_kept_and_all_are_counted(file: Write) -> None:
    content = "op,key,t\n" + "".join(f"{'set' if n % 3 else 'get'},{n % 7},{n}\n" for n in range(100))
    trace = read_trace(file(content), most=2)
    assert list(trace.operations) == [Operation(READ, "0", 0), Operation(WRITE, "1", 1)]
    assert (trace.reads, trace.writes, trace.keys, trace.length, trace.whole) == (34, 66, 7, 100, True)


def test_the_pass_ends_at_the_line_limit_and_says_so(file: Write) -> None:
    path = file("op,key\n" + "get,a\n" * 100)
    assert read_trace(path, most=None, most_lines=100).whole
    trace = read_trace(path, most=None, most_lines=99)
    assert (trace.length, trace.whole) == (99, False)


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_at_most_ten_million_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("op,key\n")
        file.writelines(f"{'set' if n % 4 == 0 else 'get'},user:{n % 700_000}\n" for n in range(MOST_LINES + 1_000))
    trace = read_trace(path, most=4_000)
    assert (trace.length, trace.writes, trace.whole) == (10_000_000, 2_500_000, False)
    assert trace.keys == pytest.approx(700_000, rel=0.01)
    assert len(trace.operations) == 4_000


def test_the_progress_ends_at_the_size_of_the_file(file: Write) -> None:
    text = "".join(f"get,{zlib.crc32(str(n).encode())}\n" for n in range(50_000)).encode()
    for content in (text, gzip.compress(text)):
        told: list[int] = []
        totals: set[int | None] = set()

        def progress(done: int, total: int | None, told: list[int] = told, totals: set[int | None] = totals) -> None:
            told.append(done)
            totals.add(total)

        read_trace(file(content), most=1, progress=progress)
        assert told == sorted(told)
        assert len(told) >= 5
        assert (told[-1], totals) == (len(content), {len(content)})


def test_standard_input_has_no_known_size(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"get,a\n")))
    read_trace(Path("-"), most=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(6, None)]


def test_the_memory_of_a_long_trace_is_bounded(file: Write) -> None:
    path = file("op,key\n" + "".join(f"get,user:{n}\n" for n in range(50_000)))
    tracemalloc.start()
    read_trace(path, most=4_000)
    _now, few = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 50,000 hashes of keys, and few operations: with all of them it would be twice as much.
    assert few < 7 * 2**20


def test_many_keys_are_estimated_in_bounded_memory() -> None:
    few = Distinct(most=4_096)
    for _round in range(2):
        for number in range(4_096):
            few.add(f"user:{number}")
    assert (few.count, few.exact) == (4_096, True)
    for number in range(100_000):
        few.add(f"user:{number}")
    assert not few.exact
    assert few.count == pytest.approx(100_000, rel=0.05)
    assert len(few._hashes) <= 4_096


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TraceError, match=r"Standard input is closed: there is no trace in it\."):
        read_trace(Path("-"), most=1)


def test_endless_empty_lines_are_no_trace(file: Write) -> None:
    with pytest.raises(TraceError, match="100,000 lines up to line 100,001 are empty"):
        read_trace(file("op,key\n" + "\n" * 100_001), most=1)
    assert read_trace(file("op,key\n" + "\n" * 100_000 + "get,a\n"), most=1).reads == 1

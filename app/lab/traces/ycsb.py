"""The steps of YCSB's core workloads.

    updates   A, B, C    reads and updates of popular rows
    latest    D          rows are added, and the newest are read most
    scans     E          rows are added, and runs of neighbours are read
    changes   F          each write is of a row that was just read

(Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010.) The proportions are those of its files
workloads/workloada … workloadf: https://github.com/brianfrankcooper/YCSB.
"""

from collections.abc import Callable, Iterator

from app.lab.traces.mix import Mix, Step
from app.lab.traces.operation import Kind
from app.lab.traces.zipf import Zipf

YCSB_ITEMS = 10**10
"""YCSB always draws from this many items, whatever the number of rows, and spreads them over the rows by a hash
(ScrambledZipfianGenerator). So its popularity falls less steeply than alpha says: of 1,000 rows the first gets 4 %."""
LONGEST_SCAN = 100


def _scrambled(mix: Mix) -> Callable[[], int]:
    popularity = Zipf(YCSB_ITEMS, mix.alpha)
    return lambda: _fnv(popularity.draw(mix.random)) % mix.keys


def _fnv(number: int) -> int:
    """Returns FNV-1a over eight bytes, as in YCSB's Utils.fnvhash64, without the sign of a Java long."""
    hashed = 0xCBF29CE484222325
    for byte in number.to_bytes(8, "little"):
        hashed = (hashed ^ byte) * 1_099_511_628_211 % 2**64
    return min(hashed, 2**64 - hashed)


def updates(mix: Mix) -> Iterator[Step]:
    """Yields the steps of YCSB A, B and C."""
    key = _scrambled(mix)
    while True:
        yield Kind.READ if mix.read() else Kind.WRITE, key()


def latest(mix: Mix) -> Iterator[Step]:
    """Yields the steps of YCSB D: rows are added, and the newest are read most."""
    rows = mix.keys
    popularity = Zipf(rows, mix.alpha)
    while True:
        if mix.read():
            yield Kind.READ, rows - 1 - popularity.draw(mix.random)
        else:
            yield Kind.WRITE, rows
            rows += 1
            popularity = Zipf(rows, mix.alpha)


def scans(mix: Mix) -> Iterator[Step]:
    """Yields the steps of YCSB E: rows are added, and runs of 1 to 100 neighbours are read."""
    rows = mix.keys
    key = _scrambled(mix)
    mean = (1 + LONGEST_SCAN) / 2
    # A scan is many reads: with this share of scans, the reads get their share.
    share = mix.reads / (mix.reads + mean * (1 - mix.reads))
    while True:
        if mix.random.random() < share:
            first = key()
            for number in range(first, min(first + mix.random.randint(1, LONGEST_SCAN), rows)):
                yield Kind.READ, number
        else:
            yield Kind.WRITE, rows
            rows += 1


def changes(mix: Mix) -> Iterator[Step]:
    """Yields the steps of YCSB F: each write is of a row that was just read."""
    key = _scrambled(mix)
    changed = (1 - mix.reads) / mix.reads
    while True:
        number = key()
        yield Kind.READ, number
        if mix.random.random() < changed:
            yield Kind.WRITE, number

"""Workloads: traces made by a recipe, for who has none, or asks what another mix would cost.

    trace = make("ycsb-b", requests=4_000, seed=1)

The same arguments make the same trace. None of them names times: at what rate they come is up to who replays them.

YCSB A-F are the core workloads of Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010, with the
proportions of its files workloads/workloada … workloadf: https://github.com/brianfrankcooper/YCSB.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from app.errors import FourwaysError
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.trace import Trace
from app.lab.traces.zipf import Zipf

MOST = 10_000_000
"""Requests, and keys."""
STEEPEST = 10.0
"""An alpha at which one key gets all but a thousandth."""


class WorkloadError(FourwaysError):
    """A workload that there is not, or that cannot be made so."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What a workload is made of."""

    requests: int
    keys: int
    alpha: float
    reads: float
    """Their share of the operations, 0 to 1."""
    random: Random

    def read(self) -> bool:
        """Whether the next one is a read."""
        return self.random.random() < self.reads


Step = tuple[Kind, int]
"""A read or a write of the key of this number."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A recipe. Its numbers are what it has where nobody asks for others."""

    name: str
    description: str
    """One sentence, for who chooses."""
    prefix: str
    """Its keys are this word, and a number."""
    reads: float
    """Their share of the operations, 0 to 1."""
    steps: Callable[[Mix], Iterator[Step]]
    """At least as many as are requested."""
    keys: int | None = 1_000
    """None: one for each write."""
    alpha: float = 0.99
    fewest_reads: float = 0
    """The least share that can be asked for."""


def make(
    workload: str,
    *,
    requests: int,
    keys: int | None = None,
    alpha: float | None = None,
    reads: float | None = None,
    seed: int = 1,
) -> Trace:
    """The trace of a workload.

    workload: a name of WORKLOADS.
    requests: how many operations; a scan of ten keys is ten.
    keys: how many there are in the beginning, or in a batch that is imported.
    alpha: how steeply popularity falls, 0 (all keys alike) to 10; what is usual is 0.6 to 1.2.
    reads: their share of the operations, 0 to 1: `share_of_reads("95:5")`.

    Raises WorkloadError.
    """
    if workload not in WORKLOADS:
        raise WorkloadError(f"There is no workload {workload!r}. There are {', '.join(WORKLOADS)}.")
    recipe = WORKLOADS[workload]
    share = recipe.reads if reads is None else reads
    steepness = recipe.alpha if alpha is None else alpha
    if not 1 <= requests <= MOST:
        raise WorkloadError(f"{requests:,} requests are not between 1 and {MOST:,}.")
    if not 0 <= steepness <= STEEPEST:
        raise WorkloadError(f"An alpha of {steepness} is not between 0 and {STEEPEST:g}.")
    if not recipe.fewest_reads <= share <= 1:
        raise WorkloadError(
            f"A share of reads of {share:g} is not between {recipe.fewest_reads:g} and 1, as {workload} has it."
        )
    count = (recipe.keys or requests) if keys is None else keys
    if not 1 <= count <= MOST:
        raise WorkloadError(f"{count:,} keys are not between 1 and {MOST:,}.")
    # Of the name, too: otherwise all workloads of one seed would read the same keys.
    mix = Mix(requests, count, steepness, share, Random(f"{workload} {seed}"))
    operations = [Operation(kind, f"{recipe.prefix}{key}") for kind, key in islice(recipe.steps(mix), requests)]
    writes = sum(operation.kind is Kind.WRITE for operation in operations)
    distinct = len({operation.key for operation in operations})
    return Trace(workload, operations, reads=requests - writes, writes=writes, keys=distinct)


def share_of_reads(ratio: str) -> float:
    """0.95 for `95:5`. Raises WorkloadError."""
    try:
        reads, writes = (float(part) for part in ratio.split(":"))
    except ValueError:
        reads = writes = math.nan
    if not (math.isfinite(reads + writes) and min(reads, writes) >= 0 and reads + writes > 0):
        raise WorkloadError(f"{ratio!r} is no ratio of reads to writes, such as 95:5.")
    return reads / (reads + writes)


def _points(mix: Mix) -> Iterator[Step]:
    """Each key as popular as its number says."""
    popularity = Zipf(mix.keys, mix.alpha)
    while True:
        yield Kind.READ if mix.read() else Kind.WRITE, popularity.draw(mix.random)


YCSB_ITEMS = 10**10
"""YCSB draws from so many items, whatever there is of rows, and spreads them over the rows by a hash
(ScrambledZipfianGenerator). So its popularity falls less steeply than alpha says: of 1,000 rows the first gets 4 %."""
LONGEST_SCAN = 100


def _scrambled(mix: Mix) -> Callable[[], int]:
    popularity = Zipf(YCSB_ITEMS, mix.alpha)
    return lambda: _fnv(popularity.draw(mix.random)) % mix.keys


def _fnv(number: int) -> int:
    """FNV-1a over eight bytes, as YCSB's Utils.fnvhash64 has it, with the sign of a Java long taken off."""
    hashed = 0xCBF29CE484222325
    for byte in number.to_bytes(8, "little"):
        hashed = (hashed ^ byte) * 1_099_511_628_211 % 2**64
    return min(hashed, 2**64 - hashed)


def _updates(mix: Mix) -> Iterator[Step]:
    """YCSB A, B and C."""
    key = _scrambled(mix)
    while True:
        yield Kind.READ if mix.read() else Kind.WRITE, key()


def _latest(mix: Mix) -> Iterator[Step]:
    """YCSB D: rows are added, and the newest are read most."""
    rows = mix.keys
    popularity = Zipf(rows, mix.alpha)
    while True:
        if mix.read():
            yield Kind.READ, rows - 1 - popularity.draw(mix.random)
        else:
            yield Kind.WRITE, rows
            rows += 1
            popularity = Zipf(rows, mix.alpha)


def _scans(mix: Mix) -> Iterator[Step]:
    """YCSB E: rows are added, and runs of 1 to 100 neighbours read."""
    rows = mix.keys
    key = _scrambled(mix)
    mean = (1 + LONGEST_SCAN) / 2
    # Of what is to be the share of scans, so that the reads have theirs.
    scans = mix.reads / (mix.reads + mean * (1 - mix.reads))
    while True:
        if mix.random.random() < scans:
            first = key()
            for number in range(first, min(first + mix.random.randint(1, LONGEST_SCAN), rows)):
                yield Kind.READ, number
        else:
            yield Kind.WRITE, rows
            rows += 1


def _changes(mix: Mix) -> Iterator[Step]:
    """YCSB F: each write is of a row that was just read."""
    key = _scrambled(mix)
    changed = (1 - mix.reads) / mix.reads
    while True:
        number = key()
        yield Kind.READ, number
        if mix.random.random() < changed:
            yield Kind.WRITE, number


PERIOD, SALE = 500, 200
"""Each 500 operations end in a sale of 200."""
ON_SALE = 3
CROWD = 0.9
"""Who comes for the sale."""


def _sales(mix: Mix) -> Iterator[Step]:
    """Twice the usual writes in a sale, and so fewer outside."""
    popularity = Zipf(mix.keys, mix.alpha)
    in_sale = min(1, 2 * (1 - mix.reads))
    outside = ((1 - mix.reads) * PERIOD - in_sale * SALE) / (PERIOD - SALE)
    while True:
        for place in range(PERIOD):
            sale = place >= PERIOD - SALE
            written = mix.random.random() < (in_sale if sale else outside)
            crowd = sale and mix.random.random() < CROWD
            number = mix.random.randrange(min(ON_SALE, mix.keys)) if crowd else popularity.draw(mix.random)
            yield Kind.WRITE if written else Kind.READ, number


def _import(mix: Mix) -> Iterator[Step]:
    """One row after the other, and a look at one of the newest now and then."""
    written = 0
    while True:
        if written and mix.read():
            newest = (written - 1) % mix.keys
            yield Kind.READ, newest - Zipf(newest + 1, mix.alpha).draw(mix.random)
        else:
            yield Kind.WRITE, written % mix.keys
            written += 1


def _catalogue(mix: Mix) -> Iterator[Step]:
    """Writes at even distances: one at least, as long as there are to be any."""
    popularity = Zipf(mix.keys, mix.alpha)
    writes = math.ceil(mix.requests * (1 - mix.reads) - 0.5) or int(mix.reads < 1)
    places = {int((number + 0.5) * mix.requests / writes) for number in range(writes)}
    for place in range(mix.requests):
        yield Kind.WRITE if place in places else Kind.READ, popularity.draw(mix.random)


SCANNED = 0.95 * (1 + LONGEST_SCAN) / 2

_ALL: Sequence[Workload] = (
    Workload("ycsb-a", "A session store: half of it reads, half updates.", "user", 0.5, _updates),
    Workload("ycsb-b", "Tags of photos: 95 % reads, 5 % updates.", "user", 0.95, _updates),
    Workload("ycsb-c", "Profiles: reads only.", "user", 1, _updates),
    Workload("ycsb-d", "Status updates: 95 % reads, of the newest most, and 5 % new rows.", "user", 0.95, _latest),
    Workload(
        "ycsb-e", "Threads: 95 % scans of up to 100 rows, 5 % new rows.", "user", SCANNED / (SCANNED + 0.05), _scans
    ),
    Workload(
        "ycsb-f",
        "A user base: half of the reads are followed by a write of what was read.",
        "user",
        2 / 3,
        _changes,
        fewest_reads=0.5,
    ),
    Workload("read-heavy", "A site's pages: 95 reads to 5 writes.", "page", 0.95, _points),
    # Between clusters 12 (4 writes to 1 read) and 31 (16 to 1) of Yang, Yue and Rashmi, "A large scale analysis of
    # hundreds of in-memory cache clusters at Twitter", OSDI 2020. Of its 54 clusters, 6 have more writes than this.
    Workload("write-heavy", "Positions, sensors, activity: 1 read to 9 writes.", "device", 0.1, _points),
    Workload(
        "flash-sale", "A shop: calm, and then bursts of orders and looks at three articles.", "article", 0.8, _sales
    ),
    Workload("counter-storm", "Views of ten pages: 98 % writes.", "page", 0.02, _points, keys=10),
    Workload(
        "batch-import",
        "A nightly import: each row is written once, in order; 5 % reads of the newest.",
        "row",
        0.05,
        _import,
        keys=None,
    ),
    Workload(
        "catalogue",
        "A product catalogue: 50,000 reads to 5 writes, and at least one.",
        "product",
        50_000 / 50_005,
        _catalogue,
    ),
)
WORKLOADS = {workload.name: workload for workload in _ALL}

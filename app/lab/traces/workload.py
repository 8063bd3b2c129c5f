"""Workloads: traces made by a recipe, for a user who has none, or asks what another mix would cost.

    trace = make("ycsb-b", requests=4_000, seed=1)

The same arguments make the same trace. No workload has times: the replay decides the rate. The steps of the recipes are
in `ycsb.py` and `everyday.py`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from app.errors import FourwaysError
from app.lab.traces.everyday import batches, catalogue, points, sales
from app.lab.traces.mix import Mix, Step
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.trace import Trace
from app.lab.traces.ycsb import LONGEST_SCAN, changes, latest, scans, updates

MOST = 10_000_000
"""The most requests, and the most keys."""
STEEPEST = 10.0
"""An alpha at which one key gets all but a thousandth."""


class WorkloadError(FourwaysError):
    """There is no such workload, or it cannot be made with such numbers."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A recipe. Its numbers are defaults."""

    name: str
    description: str
    """One sentence, for a user who chooses."""
    prefix: str
    """The word before the number in its keys."""
    reads: float
    """The share of reads in the operations, 0 to 1."""
    steps: Callable[[Mix], Iterator[Step]]
    """Yields at least the requested number of steps."""
    keys: int | None = 1_000
    """None: one for each write."""
    alpha: float = 0.99
    fewest_reads: float = 0
    """The smallest share that can be asked for."""


def make(
    workload: str,
    *,
    requests: int,
    keys: int | None = None,
    alpha: float | None = None,
    reads: float | None = None,
    seed: int = 1,
) -> Trace:
    """Makes the trace of a workload.

    workload: a name of WORKLOADS.
    requests: how many operations; a scan of ten keys counts as ten.
    keys: how many there are at the beginning, or in an imported batch.
    alpha: how steeply popularity falls, 0 (all keys alike) to 10; usual values are 0.6 to 1.2.
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
    # The name is part of the seed; otherwise all workloads of one seed would read the same keys.
    mix = Mix(requests, count, steepness, share, Random(f"{workload} {seed}"))
    operations = [Operation(kind, f"{recipe.prefix}{key}") for kind, key in islice(recipe.steps(mix), requests)]
    writes = sum(operation.kind is Kind.WRITE for operation in operations)
    distinct = len({operation.key for operation in operations})
    return Trace(workload, operations, reads=requests - writes, writes=writes, keys=distinct)


def share_of_reads(ratio: str) -> float:
    """Returns 0.95 for `95:5`. Raises WorkloadError."""
    try:
        reads, writes = (float(part) for part in ratio.split(":"))
    except ValueError:
        reads = writes = math.nan
    if not (math.isfinite(reads + writes) and min(reads, writes) >= 0 and reads + writes > 0):
        raise WorkloadError(f"{ratio!r} is no ratio of reads to writes, such as 95:5.")
    return reads / (reads + writes)


SCANNED = 0.95 * (1 + LONGEST_SCAN) / 2

_ALL: Sequence[Workload] = (
    Workload("ycsb-a", "A session store: half of it reads, half updates.", "user", 0.5, updates),
    Workload("ycsb-b", "Tags of photos: 95 % reads, 5 % updates.", "user", 0.95, updates),
    Workload("ycsb-c", "Profiles: reads only.", "user", 1, updates),
    Workload("ycsb-d", "Status updates: 95 % reads, of the newest most, and 5 % new rows.", "user", 0.95, latest),
    Workload(
        "ycsb-e", "Threads: 95 % scans of up to 100 rows, 5 % new rows.", "user", SCANNED / (SCANNED + 0.05), scans
    ),
    Workload(
        "ycsb-f",
        "A user base: half of the reads are followed by a write of what was read.",
        "user",
        2 / 3,
        changes,
        fewest_reads=0.5,
    ),
    Workload("read-heavy", "A site's pages: 95 reads to 5 writes.", "page", 0.95, points),
    # Between clusters 12 (4 writes to 1 read) and 31 (16 to 1) of Yang, Yue and Rashmi, "A large scale analysis of
    # hundreds of in-memory cache clusters at Twitter", OSDI 2020. Of its 54 clusters, 6 have more writes than this.
    Workload("write-heavy", "Positions, sensors, activity: 1 read to 9 writes.", "device", 0.1, points),
    Workload(
        "flash-sale", "A shop: calm, and then bursts of orders and looks at three articles.", "article", 0.8, sales
    ),
    Workload("counter-storm", "Views of ten pages: 98 % writes.", "page", 0.02, points, keys=10),
    Workload(
        "batch-import",
        "A nightly import: each row is written once, in order; 5 % reads of the newest.",
        "row",
        0.05,
        batches,
        keys=None,
    ),
    Workload(
        "catalogue",
        "A product catalogue: 50,000 reads to 5 writes, and at least one.",
        "product",
        50_000 / 50_005,
        catalogue,
    ),
)
WORKLOADS = {workload.name: workload for workload in _ALL}

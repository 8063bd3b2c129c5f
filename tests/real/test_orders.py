"""The orders of a real shop, line by line, taken from a stock that is just sufficient for them.

The file has no opening stock, so the test assumes one: each SKU begins with the fewest pieces with which no line is
refused. Then a line that is lost, counted twice, or overtaken by another line of its SKU shows up, as a refusal or as a
number that does not follow from the file.
"""

import asyncio
import csv
import gzip
import itertools
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.keyed import HUNG_UP, Keyed, keyed, kill
from tests.service import REPOSITORY, Service, serving

DATA = REPOSITORY.parent / "shared" / "data"
ORDERS = DATA / "orders_online_retail_2010_12__2011_04.csv.gz"
LINES = [
    pytest.param(600, marks=pytest.mark.timeout(300)),
    pytest.param(100_000, marks=[pytest.mark.prove, pytest.mark.timeout(3600)]),
]
WORKERS = 2
LANES = 8
PATIENT = {"UVICORN_TIMEOUT_KEEP_ALIVE": "120", "FOURWAYS_DATABASE_TIMEOUT": "60", "FOURWAYS_REDIS_TIMEOUT": "30"}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"The real data is not here: {DATA} does not exist.")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an order: its number in the file, its SKU, and the change of the stock (negative for a sale)."""

    number: int
    sku: str
    delta: int


Lane = deque[Line]


class Shop:
    """Sends lines to a service, and computes from the file alone what must be left after each line. When half of the
    lines are answered, it kills the service."""

    def __init__(self, service: Service, opening: Mapping[str, int], total: int) -> None:
        self.service, self.half = service, total // 2
        self.left = Counter(opening)
        self.answered = 0
        self.last: dict[int, tuple[Line, Any]] = {}

    async def send(self, connection: Keyed, lane: Lane) -> None:
        """Sends a lane, one line after the other. A line leaves the lane when its answer has arrived."""
        while lane:
            line = lane[0]
            stock = await _adjust(connection, line)
            assert stock["quantity"] == self.left[line.sku] + line.delta, line
            lane.popleft()
            self.left[line.sku] += line.delta
            self.answered += 1
            self.last[_lane(line)] = (line, stock)
            if self.answered == self.half:
                await kill(self.service)
            if line.number % 10 == 0:
                # Nobody else writes this SKU now, so every read must return this stock.
                assert (await connection.ask(_path(line.sku))).json() == stock, line

    async def send_until_killed(self, connection: Keyed, lane: Lane) -> None:
        """Sends a lane until the service is gone."""
        try:
            await self.send(connection, lane)
        except HUNG_UP:
            assert self.answered >= self.half, "Nobody had killed it."

    async def repeat_the_last(self, connection: Keyed, lane: int) -> None:
        """Repeats the last answered line of a lane, and checks that the answer is the same."""
        line, stock = self.last[lane]
        assert await _adjust(connection, line) == stock


@pytest.mark.parametrize("total", LINES)
async def test_real_order_lines_leave_the_stock_of_the_file_although_the_service_is_killed_midway(
    endpoints: Endpoints, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], total: int
) -> None:
    lines = list(itertools.islice(_lines(), total))
    opening = _least_opening_stock(lines)
    closing = Counter(opening)
    for line in lines:
        closing[line.sku] += line.delta
    # All lines of a SKU are in one lane, so they are sent in file order.
    lanes = [Lane() for _ in range(LANES)]
    for line in lines:
        lanes[_lane(line)].append(line)

    began = time.monotonic()
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=WORKERS, **PATIENT) as service,
        keyed(service, LANES) as connections,
    ):
        openings = iter(opening.items())
        await asyncio.gather(*(_open(connection, openings) for connection in connections))
        shop = Shop(service, opening, total)
        await asyncio.gather(*map(shop.send_until_killed, connections, lanes))
    seen = shop.answered
    done = await sql.fetchval("SELECT count(*) FROM stock_adjustments")

    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=WORKERS, **PATIENT) as service,
        keyed(service, LANES) as connections,
    ):
        await asyncio.gather(*map(shop.repeat_the_last, connections, range(LANES)))
        await asyncio.gather(*map(shop.send, connections, lanes))
        took = time.monotonic() - began
        served: dict[str, int] = {}
        skus = iter(opening)
        await asyncio.gather(*(_read(connection, skus, served) for connection in connections))

    with capsys.disabled():
        print(
            f"\nOnline Retail: {total:,} order lines of {len(opening):,} SKUs in {took:.1f} s, opening stock "
            f"{sum(opening.values()):,}, closing stock {sum(closing.values()):,}; killed after {seen:,} answers, "
            f"when {done - seen} lines more were done"
        )
    stored = {row["sku"]: row["quantity"] for row in await sql.fetch("SELECT sku, quantity FROM stock")}
    assert stored == dict(closing)
    assert served == stored
    assert await sql.fetchval("SELECT count(*) FROM stock_adjustments") == total
    assert min(closing.values()) == 0


def _lines() -> Iterator[Line]:
    """Yields the lines of the file, in order. A line of zero pieces is no adjustment, and is left out."""
    with gzip.open(ORDERS, "rt", encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            if (quantity := int(row["quantity"])) != 0:
                yield Line(number, row["stock_code"], -quantity)


def _least_opening_stock(lines: Sequence[Line]) -> dict[str, int]:
    """Returns for each SKU the fewest pieces with which none of its lines is refused."""
    level: Counter[str] = Counter()
    lowest: Counter[str] = Counter()
    for line in lines:
        level[line.sku] += line.delta
        lowest[line.sku] = min(lowest[line.sku], level[line.sku])
    return {sku: -level for sku, level in lowest.items()}


async def _open(connection: Keyed, openings: Iterator[tuple[str, int]]) -> None:
    for sku, quantity in openings:
        answer = await connection.ask(_path(sku), method="PUT", body={"quantity": quantity})
        assert answer.status == 201, (sku, answer.body)


async def _adjust(connection: Keyed, line: Line) -> Any:
    answer = await connection.post(f"{_path(line.sku)}/adjustments", {"delta": line.delta}, key=f"line-{line.number}")
    assert answer.status == 200, (line, answer.body)
    return answer.json()


async def _read(connection: Keyed, skus: Iterator[str], served: dict[str, int]) -> None:
    for sku in skus:
        served[sku] = (await connection.ask(_path(sku))).json()["quantity"]


def _lane(line: Line) -> int:
    return zlib.crc32(line.sku.encode()) % LANES


def _path(sku: str) -> str:
    return f"/inventory/{quote(sku, safe='')}"

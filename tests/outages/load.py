"""A steady load: a fixed rate of requests, whatever becomes of the earlier ones. Each answer is compared with what was
answered before its request."""

import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.eventually import PATIENCE, eventually
from tests.keep_alive import Answer
from tests.keyed import Keyed
from tests.outages.rows import PIECES, Rows
from tests.service import Service

READS = ("read users", "read products", "read inventory")
WRITES = ("write users", "write products", "write inventory")
VIEW = "view"
KINDS: Mapping[str, int] = {**dict.fromkeys(READS, 20), **dict.fromkeys(WRITES, 10), VIEW: 10}
"""What is requested, and how often in percent."""
LONGEST = 5.0
"""Seconds after which a request counts as hung: every deadline of the service is shorter, even on a busy machine."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A request that was answered: when it was sent, and how long it took."""

    kind: str
    began: float
    took: float
    answer: Answer

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.answer.status

    @property
    def cache_status(self) -> str:
        """Where the answer came from."""
        return self.answer.headers.get("cache-status", "")

    @property
    def problem(self) -> str:
        """The type of the problem, if the answer is one."""
        return str(self.answer.json()["type"]) if self.status >= 400 else ""


class Load:
    """Requests to some services, chosen by `seed`, on connections that stay open."""

    def __init__(self, services: Sequence[Service], rows: Rows, *, rate: float, seed: int = 1) -> None:
        self.heard: list[Heard] = []
        self._services, self._rows, self._rate = services, rows, rate
        self._random = random.Random(seed)
        self._idle: dict[str, deque[Keyed]] = defaultdict(deque)
        self._newest: Counter[str] = Counter()
        """The highest version that was answered, by the path of the row."""
        self._bodies: dict[tuple[str, int], Any] = {}
        self._sold: Counter[str] = Counter()
        self._doubtful: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends requests while the block lasts. When it ends, all of them are answered."""
        over = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask_on(group, over))
                yield
                over.set()
        finally:
            for connections in self._idle.values():
                for connection in connections:
                    await connection.close()

    async def hears(self, number: int) -> None:
        """Returns when `number` more requests were answered."""
        enough = len(self.heard) + number

        async def has_heard() -> bool:
            return len(self.heard) >= enough

        await eventually(has_heard)

    def within(self, began: float, ended: float) -> list[Heard]:
        """Returns the requests that were sent and answered between these two moments."""
        return [heard for heard in self.heard if began <= heard.began and heard.began + heard.took <= ended]

    async def check(self, sql: asyncpg.Connection) -> None:
        """Fails if a row on any instance differs from Postgres, or if Postgres has lost what was answered."""
        versions = {
            f"/{resource}/{key}": version
            for resource, query in {
                "users": "SELECT id, version FROM users",
                "products": "SELECT sku, version FROM products",
                "inventory": "SELECT sku, version FROM stock",
            }.items()
            for key, version in await sql.fetch(query)
        }
        for service in self._services:
            connection = await Keyed.to(service.url)
            for path in self._rows.paths:
                answer = await connection.ask(path)
                assert answer.status == 200, (path, answer)
                row = answer.json()
                assert row["version"] == versions[path] >= self._newest[path], (path, answer)
                self._compare(path, row)
                if path in self._rows.stocks:
                    gone = PIECES - row["quantity"]
                    assert self._sold[path] <= gone <= self._sold[path] + self._doubtful[path], (path, gone)
            page = self._rows.page
            views = (await connection.ask(page)).json()["views"]
            assert self._sold[page] <= views <= self._sold[page] + self._doubtful[page], (page, views)
            await connection.close()

    def report(self, what: str, heard: Iterable[Heard]) -> str:
        """Returns a line for each kind: how often, with which answers, how fast."""
        kinds: dict[str, list[Heard]] = defaultdict(list)
        for one in heard:
            kinds[one.kind].append(one)
        lines = [f"\n{what}"]
        for kind in KINDS:
            took = sorted(one.took for one in kinds[kind])
            if took:
                statuses = Counter(f"{one.status} {one.problem}".strip() for one in kinds[kind])
                p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
                told = ", ".join(f"{status} x {times}" for status, times in sorted(statuses.items()))
                lines.append(
                    f"  {kind:<16}{p50 * 1000:6.0f} ms{p99 * 1000:6.0f} ms p99{took[-1] * 1000:6.0f} ms at most  {told}"
                )
        return "\n".join(lines)

    async def _ask_on(self, group: asyncio.TaskGroup, over: asyncio.Event) -> None:
        began = time.monotonic()
        number = 0
        while not over.is_set():
            group.create_task(self._ask())
            number += 1
            # Keeps the rate: a delay is caught up later.
            await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))

    async def _ask(self) -> None:
        (kind,) = self._random.choices(list(KINDS), list(KINDS.values()))
        service = self._random.choice(self._services)
        path, method, where, body = self._request(kind)
        newest = self._newest[path]
        began = time.monotonic()
        idle = self._idle[service.url]
        connection = idle.popleft() if idle else await Keyed.to(service.url)
        await connection.send(where, method=method, body=body)
        answer = await asyncio.wait_for(connection.answer(), PATIENCE)
        idle.append(connection)
        heard = Heard(kind, began, time.monotonic() - began, answer)
        self.heard.append(heard)
        self._keep_books(heard, path, newest)

    def _request(self, kind: str) -> tuple[str, str, str, object]:
        """Returns the path of a row, and the request for it."""
        choose, rows = self._random.choice, self._rows
        resource = {"users": rows.users, "products": rows.products, "inventory": rows.stocks}
        if kind == VIEW:
            return rows.page, "POST", rows.page, {"count": 1}
        verb, _, name = kind.partition(" ")
        path = choose(resource[name])
        if verb == "read":
            return path, "GET", path, None
        if name == "inventory":
            return path, "POST", f"{path}/adjustments", {"delta": -1}
        return path, "PATCH", path, {"name": f"{self._random.random()}"}

    def _keep_books(self, heard: Heard, path: str, newest: int) -> None:
        counts = heard.kind in ("write inventory", VIEW)
        if heard.status == 503:
            assert "retry-after" in heard.answer.headers, heard
            # A view that was refused may have been accepted; stock may only have changed if the answer says so.
            self._doubtful[path] += counts and (heard.kind == VIEW or heard.problem == "outcome-unknown")
            return
        assert heard.status in (200, 202), heard
        self._sold[path] += counts
        if heard.kind == VIEW or "stale-if-error" in heard.cache_status or "unverified" in heard.cache_status:
            return
        row = heard.answer.json()
        assert row["version"] >= newest, f"{path}: {newest} was answered before this was asked: {heard}"
        self._newest[path] = max(self._newest[path], row["version"])
        self._compare(path, row)

    def _compare(self, path: str, row: Any) -> None:
        assert self._bodies.setdefault((path, row["version"]), row) == row, "One version is one row."

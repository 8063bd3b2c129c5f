"""HTTP load from a separate process: keep-alive connections that send a request, check its answer, and repeat.

    await drive(server, asks, connections=64, turn=…)      one turn
    python -m tests.benchmarks.load                        the process: a plan on stdin, its figures on stdout

Each answer is checked whole: status, body, and a word of the head. Where wrk is installed, it makes the load
(`wrk.py`): it costs less, and so measures more of the server.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import uvloop

from tests.benchmarks.measurement import Sample, WrongAnswer

if TYPE_CHECKING:
    from tests.benchmarks.stage import Server

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
WARM_UP = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and its expected answer: this status, `head` somewhere in the head, and a body that begins with `body`,
    and has nothing after that unless it is `open`."""

    path: str
    body: str
    method: str = "GET"
    content: str = ""
    status: int = 200
    head: str = ""
    open: bool = False

    def request(self, host: str) -> bytes:
        """Returns the bytes to send."""
        lines = f"{self.method} {self.path} HTTP/1.1\r\nhost: {host}\r\n"
        if self.content:
            lines += "content-type: application/json\r\n"
        if self.method != "GET":
            lines += f"content-length: {len(self.content.encode())}\r\n"
        return f"{lines}\r\n{self.content}".encode()


async def drive(server: "Server", asks: Sequence[Ask], *, connections: int, turn: timedelta) -> Sample:
    """Sends the requests in turns for the duration of `turn`, and returns the figures. Raises WrongAnswer."""
    # Imported here: the load process needs nothing of this, and it would import the whole application.
    from tests.benchmarks import wrk
    from tests.benchmarks.stage import on, processors
    from tests.service import REPOSITORY

    program = wrk.program()
    if program is not None:
        return await wrk.drive(program, server, asks, connections=connections, turn=turn)
    plan = {
        "url": server.url,
        "connections": connections,
        "seconds": turn.total_seconds(),
        "asks": [asdict(ask) for ask in asks],
    }
    with on(processors()[1]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.load",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )  # fmt: skip
    before = server.cpu()
    try:
        figures, complaint = await process.communicate(json.dumps(plan).encode())
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise WrongAnswer(complaint.decode().strip().splitlines()[-1])
    said: dict[str, float] = json.loads(figures)
    # The processor time is that of all answers, including the warm-up: it is scaled to the counted ones.
    cpu = (server.cpu() - before) * (said["counted"] / said["all"])
    return Sample(
        int(said["counted"]),
        timedelta(seconds=said["seconds"]),
        cpu,
        timedelta(seconds=said["p50"]),
        timedelta(seconds=said["p99"]),
    )


class Asking(asyncio.Protocol):
    """One connection, with one request in flight at a time."""

    def __init__(self, load: "Load", place: int) -> None:
        self._load, self._place = load, place
        self._got = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        """Sends the next request."""
        assert self._transport is not None
        self._place = (self._place + 1) % len(self._load.asks)
        self._sent = time.perf_counter()
        self._transport.write(self._load.requests[self._place])

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data if self._got else data
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(got, 0, end)
        if length is None:
            self._load.end(f"{self._load.asks[self._place].path} was answered without a length.")
            return
        if len(got) < end + 4 + int(length[1]):
            return
        self._got = b""
        ask, body = self._load.asks[self._place], self._load.bodies[self._place]
        whole = got.startswith(body, end + 4) and (ask.open or len(got) == end + 4 + len(body))
        if not whole or int(got[9:12]) != ask.status or ask.head.encode() not in got[:end]:
            self._load.end(f"{ask.method} {ask.path} was answered with {got[:600]!r}, and not {body[:200]!r}.")
            return
        if self._load.count(self._sent):
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.end(f"The server has hung up: {error}.")

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


class Load:
    """All connections, and what is counted of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.asks = [Ask(**ask) for ask in plan["asks"]]
        parts = urlsplit(plan["url"])
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self.requests = [ask.request(parts.netloc) for ask in self.asks]
        self.bodies = [ask.body.encode() for ask in self.asks]
        self._connections = int(plan["connections"])
        self._turn = float(plan["seconds"])
        self._all = 0
        self._took: list[float] = []
        self._begin = self._end = 0.0
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def count(self, sent: float) -> bool:
        """Counts a right answer, and returns whether to go on."""
        now = time.perf_counter()
        self._all += 1
        if now >= self._end:
            if not self._took:  # The turn was shorter than one answer: it lasts until the answer.
                self._took.append(now - sent)
                self._turn = now - self._begin
            self.end("")
            return False
        if now >= self._begin:
            self._took.append(now - sent)
        return True

    def end(self, why: str) -> None:
        """Ends everything; `why` is empty when all is well."""
        if not self._ended.done():
            self._ended.set_result(why)

    async def run(self) -> dict[str, float]:
        """Sends requests until the time is over. Raises WrongAnswer."""
        loop, random_ = asyncio.get_running_loop(), random.Random(1)
        asking = [
            (
                await loop.create_connection(
                    lambda: Asking(self, random_.randrange(len(self.asks))), self._host, self._port
                )
            )[1]
            for _ in range(self._connections)
        ]
        self._begin = time.perf_counter() + WARM_UP.total_seconds()
        self._end = self._begin + self._turn
        for each in asking:
            each.ask()
        why = await asyncio.wait_for(self._ended, self._turn + 60)
        for each in asking:
            each.close()
        if why or not self._took:
            raise WrongAnswer(why or "Nothing was answered.")
        self._took.sort()
        return {
            "counted": len(self._took),
            "all": self._all,
            "seconds": self._turn,
            "p50": self._took[len(self._took) // 2],
            "p99": self._took[len(self._took) * 99 // 100],
        }


async def _run() -> None:
    print(json.dumps(await Load(json.load(sys.stdin)).run()))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run())
        except WrongAnswer as error:
            sys.exit(str(error))
        except KeyboardInterrupt:
            sys.exit(130)

"""One node of a Redis Cluster: a process of the embedded Redis. It keeps its table of nodes on disk, and its data if it
is `persistent`."""

import asyncio
import re
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.embedded.binaries import redis_program
from tests.eventually import PATIENCE, eventually
from tests.faults.cluster_bus import ClusterBus
from tests.free_port import BUS, free_port

HOST = "127.0.0.1"


class RedisNode:
    """Runs between `start` and `stop`. Its ports are chosen at the start."""

    def __init__(self, directory: Path, node_timeout: int, bus: ClusterBus | None, *, persistent: bool = False) -> None:
        self.id = ""
        self.is_paused = False
        self._directory, self._node_timeout, self._bus, self._persistent = directory, node_timeout, bus, persistent

    async def start(self) -> None:
        """Starts it as a primary without slots, which knows no other node."""
        self._directory.mkdir()
        self.port = free_port()
        named: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        bus_port = self.port + BUS
        self.bus_port = bus_port if self._bus is None else await self._bus.port_of(named, bus_port)
        """Where the others find its bus."""
        self.process = await self._spawned()
        self.redis = Redis(host=HOST, port=self.port, protocol=2, retry=Retry(NoBackoff(), 1))
        await eventually(self._answers)
        self.id = (await self.ask("CLUSTER", "MYID")).decode()
        named.set_result(self.id)

    async def restart(self, *, empty: bool = False) -> None:
        """Starts it again after its end, as what its table of nodes says: with the data that it keeps, or `empty`."""
        if empty:
            shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)
            for file in self._directory.glob("*.aof"):
                file.unlink()
        self.process = await self._spawned()
        await eventually(self._answers)

    async def stop(self) -> None:
        """Ends it, if it still runs."""
        await self.redis.aclose()
        self.resume()
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), PATIENCE)

    async def kill(self) -> None:
        """Kills it (`kill -9`)."""
        self.process.kill()
        await self.process.wait()

    def pause(self) -> None:
        """Stops it (SIGSTOP): it accepts connections, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """Ends that."""
        if self.is_paused:
            self.process.send_signal(signal.SIGCONT)
            self.is_paused = False

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process.returncode is None

    async def ask(self, *words: str | bytes | int) -> Any:
        """Returns what it answers, as it is in the protocol."""
        ask = cast("Callable[..., Awaitable[Any]]", self.redis.execute_command)
        return await ask(*words)

    async def epoch(self, which: Literal["current", "my"]) -> int:
        """Returns the newest epoch that it has heard of, or the one in which it took over its slots."""
        (epoch,) = re.findall(rf"cluster_{which}_epoch:(\d+)", (await self.ask("CLUSTER", "INFO")).decode())
        return int(epoch)

    async def owners(self) -> dict[int, str]:
        """Returns the id of the owner of each slot, as far as it knows."""
        owners: dict[int, str] = {}
        for first, last, primary, *_replicas in await self.ask("CLUSTER", "SLOTS"):
            owners.update(dict.fromkeys(range(first, last + 1), primary[2].decode()))
        return owners

    async def _spawned(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            redis_program("server"), *self._options(), cwd=self._directory, stdout=asyncio.subprocess.DEVNULL
        )

    def _options(self) -> list[str]:
        options = {
            "port": self.port,
            "bind": HOST,
            "cluster-enabled": "yes",
            "cluster-node-timeout": self._node_timeout,
            "cluster-announce-bus-port": self.bus_port,
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": 0,
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "hz": 100,
        }
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    async def _answers(self) -> bool:
        assert self.is_running, f"It could not listen on {self.port}, or on {self.port + BUS}."
        try:
            return bool(await self.redis.ping())
        except (RedisError, OSError):
            return False

"""Ports for servers: those of two processes differ."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from tests.free_port import BLOCK, BUS, free_port
from tests.service import REPOSITORY

TAKES = f"""
import sys
from tests.free_port import free_port
for _ in sys.stdin:
    print(*(free_port() for _ in range({BLOCK + 1})), flush=True)
"""
"""Takes ports each time that it is asked, more than it claims at once."""


async def _ports_of(process: Process) -> set[int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    return {int(port) for port in (await process.stdout.readline()).split()}


async def test_no_two_processes_are_given_the_same_port_while_nobody_listens_there_yet() -> None:
    """A chooses a port                B chooses the same one, on which nobody listens yet
    its server begins to listen        its server cannot, or what it asks is answered by A's
    """
    a, b = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", TAKES, stdin=PIPE, stdout=PIPE, cwd=REPOSITORY)
        for _ in range(2)
    ]
    try:
        taken = [await _ports_of(process) for process in (a, b, a, b)]
    finally:
        for process in (a, b):
            process.kill()
            await process.wait()
    assert len(set().union(*taken)) == 4 * (BLOCK + 1)


def test_no_client_is_given_the_port_of_a_server_that_has_not_begun() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert free_port() + BUS < lowest


async def test_a_port_on_which_something_else_listens_is_not_free() -> None:
    port = free_port()
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", port + BUS + 1):
        assert free_port() > port + 1

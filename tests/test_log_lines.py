"""How a line of the log begins."""

import re

import pytest

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.home import Home
from tests.service import free_port
from tests.terminal import terminal

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [a-z][\w.]*: .+")
COMMANDS = {
    "fourways": (["fourways", "serve", "--workers", "2"], 2),
    "uvicorn": (["uvicorn", "app.main:app"], 1),
}


@pytest.mark.parametrize(("command", "processes"), COMMANDS.values(), ids=COMMANDS)
async def test_every_line_says_when_how_grave_and_who_in_each_process(
    home: Home, endpoints: Endpoints, command: list[str], processes: int
) -> None:
    """Nobody is where the database should be, so each process has something to say when it starts."""
    async with terminal(
        home.screen(), *command, **home.environment, UVICORN_PORT=home.port,
        REDIS_URL=endpoints.redis_url, DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
    ) as running:  # fmt: skip

        async def all_have_said_it() -> bool:
            return running.screen.count(" WARNING app.main: Not as it should be: postgres: ") == processes

        await eventually(all_have_said_it)
    lines = running.screen.splitlines()
    if command[0] == "fourways":  # What it tells a person first.
        lines = lines[next(number for number, line in enumerate(lines) if "/users/1" in line) + 1 :]
        lines = [line for line in lines if line not in ("", "Stopped.")]
    assert len(lines) >= processes
    assert [line for line in lines if not LINE.fullmatch(line)] == []

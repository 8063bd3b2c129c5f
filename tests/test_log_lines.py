"""The format of log lines, the ids of requests in them, and the messages at startup."""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app import main
from app.caching.trust import TRUST
from app.embedded import Endpoints
from app.log_lines import JsonLine, Line, WithRequest
from app.metrics import Metrics
from app.request_id import CURRENT
from app.settings import Settings
from app.wiring import Resources, open_resources
from tests.eventually import PATIENCE, eventually
from tests.home import Home
from tests.in_process import application
from tests.service import REPOSITORY, free_port
from tests.terminal import Terminal, terminal

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [a-z][\w.]*: .+")
COMMANDS = {
    "fourways": (["fourways", "serve", "--workers", "2"], 2),
    "uvicorn": (["uvicorn", "app.main:app"], 1),
}


@asynccontextmanager
async def running(
    home: Home, endpoints: Endpoints, command: list[str], processes: int, **environment: str
) -> AsyncIterator[Terminal]:
    """The service without a database, so that each process logs something when it starts; all have done so."""
    async with terminal(
        home.screen(), *command, **home.environment, UVICORN_PORT=home.port,
        REDIS_URL=endpoints.redis_url, DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
        **environment,
    ) as running:  # fmt: skip

        async def all_have_said_it() -> bool:
            return running.screen.count("Not as it should be: postgres: ") == processes

        await eventually(all_have_said_it)
        yield running


async def is_alive(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/live")).is_success
    except httpx.TransportError:
        return False


def lines_of(running: Terminal) -> list[str]:
    lines = running.screen.splitlines()
    if "Fourways serves" in running.screen:  # It first prints a text for its user.
        lines = lines[next(number for number, line in enumerate(lines) if "/users/1" in line) + 1 :]
    return [line for line in lines if line not in ("", "Stopped.")]


@pytest.mark.parametrize(("command", "processes"), COMMANDS.values(), ids=COMMANDS)
async def test_every_log_line_has_time_level_and_logger_in_each_process(
    home: Home, endpoints: Endpoints, command: list[str], processes: int
) -> None:
    async with running(home, endpoints, command, processes) as service:
        pass
    assert len(lines_of(service)) >= processes
    assert [line for line in lines_of(service) if not LINE.fullmatch(line)] == []


@pytest.mark.parametrize(("command", "processes"), COMMANDS.values(), ids=COMMANDS)
async def test_every_log_line_can_be_a_json_object(
    home: Home, endpoints: Endpoints, command: list[str], processes: int
) -> None:
    """In the workers, for their requests, and in the supervisor when a worker has ended."""
    async with (
        running(home, endpoints, command, processes, FOURWAYS_LOG_FORMAT="json", FOURWAYS_ACCESS_LOG="true") as service,
        home.client() as client,
    ):
        await eventually(lambda: is_alive(client))
        refused = await client.get("/users/1", headers={"X-Request-ID": "order-17"})
        assert (refused.status_code, refused.json()["request_id"]) == (503, "order-17")
        if processes > 1:
            service.tree().workers()[0].kill()
            await service.shows("replaces it.")
    lines = [json.loads(line) for line in lines_of(service)]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    ours = {line["logger"]: line for line in lines if line.get("request_id") == "order-17"}
    assert "The database refuses connections." in ours["app.routers.problems"]["message"]
    access = ours["app.access"]
    assert (access["method"], access["path"], access["status"]) == ("GET", "/users/1", 503)
    assert ("app.supervisor" in {line["logger"] for line in lines}) == (processes > 1)


async def test_the_level_decides_which_lines_there_are(home: Home, endpoints: Endpoints) -> None:
    command = ["fourways", "serve", "--workers", "2"]
    async with running(home, endpoints, command, 2, FOURWAYS_LOG_LEVEL="INFO") as service:
        pass
    assert len(re.findall(r" INFO uvicorn.error: Started server process", service.screen)) == 2


async def test_pipelined_requests_have_their_own_ids(home: Home, endpoints: Endpoints) -> None:
    """The task of the second request is made while the first one is answered, and inherits its context."""
    async with running(home, endpoints, ["fourways", "serve"], 1, FOURWAYS_ACCESS_LOG="true") as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(home.port))
        first = b"GET /users/1 HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: first\r\n\r\n"
        writer.write(first + b"GET /users/2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await writer.wait_closed()
    assert answers.count(b"x-request-id: first") == 1
    ids = dict(re.findall(r"app\.access: \[(\w+)\] GET (\S+) 503", service.screen))
    assert sorted(ids.values()) == ["/users/1", "/users/2"]
    assert ids["first"] == "/users/1"


def test_lines_look_as_the_docs_show(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (REPOSITORY / "docs" / "operate.md").read_text()
    text = "GET '/users/1': The database refuses connections."
    line = record("app.routers.problems", logging.WARNING, text)
    assert f"\n{Line().format(line)}\n" in page
    access = {"method": "GET", "path": "/users/1", "status": 200, "ms": 0.412}
    line = record("app.access", logging.INFO, "GET /users/1 200 0.412 ms", access=access)
    shown = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert [json.loads(each) for each in shown] == [json.loads(JsonLine().format(line))]


def test_an_exception_stays_within_its_json_object() -> None:
    try:
        raise ZeroDivisionError("one\ntwo")
    except ZeroDivisionError:
        line = record("app", logging.ERROR, "three\nfour", exc_info=sys.exc_info())
    formatted = JsonLine().format(line)
    assert "\n" not in formatted
    assert json.loads(formatted)["message"] == "three\nfour"
    assert json.loads(formatted)["exception"].endswith("ZeroDivisionError: one\ntwo")


def record(name: str, level: int, text: str, **more: Any) -> logging.LogRecord:
    """A record of the request `order-17`."""
    made = logging.makeLogRecord({"name": name, "levelno": level, "levelname": logging.getLevelName(level)} | more)
    made.msg, made.created, made.msecs = text, 1_795_941_978.123, 123.0
    token = CURRENT.set({"headers": [(b"x-request-id", b"order-17")]})
    assert WithRequest().filter(made)
    CURRENT.reset(token)
    return made


async def test_a_short_pause_during_a_start_logs_no_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay confirms that Redis has all changes · the process pauses, and trust lapses · it reports its state"""

    @asynccontextmanager
    async def stands_still(settings: Settings, metrics: Metrics) -> AsyncIterator[Resources]:
        async with open_resources(settings, metrics) as resources:
            time.sleep(2 * TRUST.total_seconds())  # noqa: ASYNC251  # The whole process pauses.
            assert not resources.cache.caches[0].trust.held
            yield resources

    monkeypatch.setattr(main, "open_resources", stands_still)
    async with application(settings):
        pass
    assert [line for line in caplog.messages if "breaker" in line] == []

"""A variable that looks like a setting and is none is named when the service starts, once, with what may be meant."""

from pathlib import Path

import pytest

from app.unknown_variables import unknown_variables
from tests.eventually import eventually
from tests.home import Home
from tests.service import free_port
from tests.terminal import terminal

TYPO = "FOURWAYS_USER_TTL is not a setting and has no effect: perhaps FOURWAYS_USERS_TTL is meant."
NOWHERE = {"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://postgres@127.0.0.1:1/postgres"}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory without a file `.env`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_and_what_compose_reads_are_known(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    monkeypatch.setenv("FOURWAYS_USERS_TTL", "5")
    monkeypatch.setenv("fourways_stale_for", "5")
    monkeypatch.setenv("FOURWAYS", "x")
    (elsewhere / ".env").write_text("FOURWAYS_PORTS=8000-8002\nPORT=9\nPOSTGRES_PASSWORD=x\n")
    assert unknown_variables() == []


def test_each_unknown_one_is_named_with_the_nearest_setting(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    monkeypatch.setenv("FOURWAYS_USER_TTL", "geheim")
    (elsewhere / ".env").write_text("FOURWAYS_DIR=x\nFOURWAYS_USER_TTL=5\n# FOURWAYS_NOTE=1\n")
    assert unknown_variables() == [
        "FOURWAYS_DIR is not a setting and has no effect: perhaps FOURWAYS_DIRECTORY is meant.",
        TYPO,
    ]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_fourways_says_it_once_and_serves(workers: str, home: Home) -> None:
    async with home.runs("serve", "--workers", workers, FOURWAYS_USER_TTL="5", **NOWHERE) as running:

        async def all_have_started() -> bool:
            return running.screen.count(" WARNING app.main: Not as it should be: postgres: ") == int(workers)

        await eventually(all_have_started)
        assert running.screen.count(f" WARNING app.unknown_variables: {TYPO}\n") == 1


async def test_uvicorn_says_it_and_serves(home: Home) -> None:
    environment = {**home.environment, **NOWHERE, "FOURWAYS_USER_TTL": "5", "UVICORN_PORT": str(free_port())}
    async with terminal(home.screen(), "uvicorn", "app.main:app", **environment) as running:
        await running.shows(" WARNING app.main: Not as it should be: postgres: ")
        assert running.screen.count(f" WARNING app.unknown_variables: {TYPO}\n") == 1

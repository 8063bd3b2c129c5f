"""A directory for embedded servers. After every test, the fixture checks that no server was left running in it."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import embedded_servers
from tests.embedded.apps import kill_all, servers_below
from tests.open_directory import anywhere, open_directory


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's own."""
    base = Path(tempfile.mkdtemp(prefix="fourways-test-", dir=anywhere()))
    base.chmod(0o755)
    yield base
    places = [base, *_linked_from(base)]
    left = servers_below(places)
    names = [f"{process.name()} {process.pid}" for process in left]
    kill_all(left)
    for place in places:
        shutil.rmtree(place)
    assert not names, "The test left servers running."


@pytest.fixture
def fresh(base: Path) -> Path:
    """A directory that does not exist yet, like `.fourways` in a fresh checkout."""
    return base / ".fourways"


@pytest.fixture(scope="session")
def postgres_home() -> Iterator[Path]:
    """Postgres' home after a first run, for tests to copy: most of the time of a first start is initdb."""
    with open_directory() as base:
        with embedded_servers(base):
            pass
        yield base / "postgres"


@pytest.fixture
def directory(base: Path, postgres_home: Path) -> Path:
    """A directory whose servers ran before, but have no data yet."""
    directory = base / ".fourways"
    directory.mkdir()
    subprocess.run(["cp", "-a", postgres_home, directory / "postgres"], check=True)
    return directory


def _linked_from(base: Path) -> list[Path]:
    """Returns the directories elsewhere that hold data or sockets, but only those with a name that we give them."""
    links = [link for name in ("postgres", "sockets") for link in base.rglob(name) if link.is_symlink()]
    targets = {link.readlink() for link in links}
    inner = {link.readlink() for target in targets for link in target.glob("sockets") if link.is_symlink()}
    return [path for path in targets | inner if re.fullmatch(r"fourways-[0-9a-f]{16}", path.name) and path.is_dir()]

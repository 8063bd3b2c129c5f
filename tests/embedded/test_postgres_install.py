"""A virtual environment that the Postgres account cannot enter, for example one below /root."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import EmbeddedError, embedded_servers
from app.embedded import postgres_install as module
from app.embedded.account import postgres_account
from app.embedded.binaries import postgres_install
from app.embedded.postgres_install import runnable_install
from tests.embedded.apps import is_root, sql

pytestmark = pytest.mark.skipif(not is_root(), reason="A plain user runs Postgres himself.")


@pytest.fixture
def scratch(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in place of /var/tmp. The wheel is below a directory that only root can enter."""
    venv = base / "venv"
    venv.mkdir(mode=0o700)
    package = postgres_install().parent
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            (venv / source.name).symlink_to(source)
    monkeypatch.setattr(sys, "path", [str(venv), *sys.path])
    assert postgres_install().is_relative_to(venv)
    with tempfile.TemporaryDirectory(prefix="fourways-test-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        monkeypatch.setattr(module, "SCRATCH", Path(scratch))
        yield Path(scratch)


def test_an_unreachable_postgres_is_copied_once_and_the_copy_runs(base: Path, directory: Path, scratch: Path) -> None:
    with embedded_servers(directory) as endpoints:
        assert sql(endpoints, "select 1") == "1"
    (copy,) = scratch.iterdir()
    assert (copy.stat().st_uid, copy.stat().st_mode & 0o777) == (0, 0o755)
    before = copy.stat().st_ino
    assert runnable_install(postgres_account()).is_relative_to(copy)
    assert [path.stat().st_ino for path in scratch.iterdir()] == [before]
    assert (base / "venv").stat().st_mode & 0o777 == 0o700


def test_a_copy_of_another_user_is_not_run(scratch: Path) -> None:
    runnable = runnable_install(postgres_account())
    copy = runnable.parents[1]
    os.chown(copy, 12345, 12345)
    with pytest.raises(EmbeddedError, match=r"belongs to somebody else \(user id 12345\) and is not run"):
        runnable_install(postgres_account())
    os.chown(copy, 0, 0)
    copy.chmod(0o777)
    with pytest.raises(EmbeddedError, match="is not run"):
        runnable_install(postgres_account())


def test_a_broken_copy_is_reported_in_a_sentence(scratch: Path) -> None:
    shutil.rmtree(runnable_install(postgres_account()) / "bin")
    with pytest.raises(EmbeddedError, match="can run Postgres neither from"):
        runnable_install(postgres_account())

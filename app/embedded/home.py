"""The directories of a server: one private directory (mode 0700) for its files, and one for its socket.

A socket's path may have about 100 bytes. If the directory's path is too long, the socket is in a short one under the
temp directory. The link `sockets` points to it, for processes that have another TMPDIR.

What can go wrong: names under /tmp or /var/tmp are predictable, so another user may have made the directory first, to
read the data or to impersonate the server. So a directory is used only if its owner is the expected one, and never
through a link.
"""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.embedded.account import Account
from app.embedded.errors import EmbeddedError

LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 107 on Linux and 103 on macOS
SCRATCH = Path("/var/tmp")  # Survives a reboot, unlike /tmp.


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one server."""

    directory: Path
    sockets: Path


def make_home(directory: Path, socket_name: str, account: Account | None = None) -> Home:
    """Returns the home in this directory, and creates what is missing, for the account or else the current user."""
    private_directory(directory, account)
    directory = directory.resolve()
    if _fits(directory / socket_name):
        return Home(directory, directory)
    link, name = directory / "sockets", _short_name(directory)
    if not link.is_symlink() or link.readlink().name != name:  # Another name: this directory is a copy.
        link.unlink(missing_ok=True)
        link.symlink_to(Path(tempfile.gettempdir(), name))
    return Home(directory, private_directory(link.readlink(), account))


def find_home(directory: Path, socket_name: str) -> Home | None:
    """Returns the home in this directory if it exists. Creates nothing."""
    directory = directory.resolve()
    if _fits(directory / socket_name):
        return Home(directory, directory)
    link = directory / "sockets"
    if not link.is_symlink() or link.readlink().name != _short_name(directory):
        return None
    return Home(directory, link.readlink())


def postgres_directory(directory: Path, account: Account | None) -> Path:
    """Returns Postgres' directory: below the app's, or under /var/tmp with a link, if the account cannot enter that."""
    link, scratch = directory / "postgres", SCRATCH / _short_name(directory.resolve())
    if not link.is_symlink():
        if account is None or link.exists() or account.can_enter(directory):
            return link
        private_directory(scratch, account)
        link.symlink_to(scratch)
    if link.readlink() != scratch:
        raise EmbeddedError(
            f"{link} leads to {link.readlink()}, but the data of this directory belongs in {scratch}: the directory "
            f"was moved or copied. Delete the link; to keep the data, move it there first."
        )
    return scratch


def private_directory(path: Path, account: Account | None = None) -> Path:
    """Returns the directory, created with mode 0700 if missing. Raises EmbeddedError if another user owns it."""
    me = os.geteuid()
    owner = me if account is None else account.uid
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {me, owner}:
            raise EmbeddedError(
                f"{path} belongs to somebody else (user id {found.st_uid}) and is not used. Delete it, or run as that "
                f"user, or in another directory."
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            path.chmod(0o700)
        if found.st_uid != owner and account is not None:  # It is new, or an earlier start was killed at this point.
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    except (FileExistsError, NotADirectoryError) as error:
        raise EmbeddedError(f"{path} is needed as a directory but is something else. Delete it.") from error
    except OSError as error:
        raise EmbeddedError(
            f"{path} cannot be made or used: {error.strerror}. Set FOURWAYS_DIRECTORY to another one."
        ) from error
    return path


def _fits(socket: Path) -> bool:
    # A comma separates hosts in a database URL, so a path with a comma cannot be used there.
    return len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH and "," not in str(socket)


def _short_name(directory: Path) -> str:
    return "fourways-" + hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]

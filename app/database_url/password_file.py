"""The password file of libpq: lines of `host:port:database:user:password`, where `*` matches anything, and a backslash
escapes a colon or a backslash.

What can go wrong: a file that others may read is ignored, as libpq ignores it.
"""

import re
import stat
from pathlib import Path

LINE = re.compile(":".join([r"((?:\\.|[^:\\])*)"] * 4) + ":(.*)")


def password_for(file: Path, host: str, port: int, database: str, user: str) -> str | None:
    """Returns the password of the first line that matches; None if none does, or the file cannot be used."""
    if fault(file) is not None:
        return None
    wanted = ("localhost" if host.startswith("/") else host, str(port), database, user)
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        match = None if line.startswith("#") else LINE.fullmatch(line)
        if match is not None:
            *fields, password = match.groups()
            if all(field == "*" or _plain(field) == each for field, each in zip(fields, wanted, strict=True)):
                return _plain(password)
    return None


def fault(file: Path) -> str | None:
    """Returns why the file cannot be used, as a clause; None if it can."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not stat.S_ISREG(mode):
        return "it is not a file"
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return "others may read it; change its mode to 600"
    return None


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)

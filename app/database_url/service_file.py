"""The connection service file of libpq: parameters under a name, in `PGSERVICEFILE`, `~/.pg_service.conf`, or the
`pg_service.conf` in `PGSYSCONFDIR`.

What can go wrong: `ValueError`, if no file defines the service, or a line cannot be read.
"""

import configparser
import os
from collections.abc import Iterable
from pathlib import Path

from app.database_url.parameter import Parameter


def read_service(service: Parameter, known: Iterable[str]) -> dict[str, Parameter]:
    """Returns the parameters that a service gives, all of them `known`. Raises ValueError."""
    for file in _files():
        parser = configparser.ConfigParser(
            interpolation=None, delimiters=("=",), comment_prefixes=("#",), default_section=""
        )
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # Its message quotes lines, and one may hold a password.
            raise service.refused(f"{file} has a line that is neither [name] nor parameter=value") from None
        if parser.has_section(service.value):
            found = dict(parser.items(service.value))
            if unknown := sorted(found.keys() - set(known) | found.keys() & {"service"}):
                raise service.refused(f"in {file}, it has the unknown parameter {unknown[0]}")
            source = f"the service {service.value!r}"
            return {name: Parameter(name, value, source) for name, value in found.items() if value}
    raise service.refused(f"none of {', '.join(map(str, _files()))} defines it")


def _files() -> list[Path]:
    named = os.environ.get("PGSERVICEFILE")
    files = [Path(named) if named else Path.home() / ".pg_service.conf"]
    if directory := os.environ.get("PGSYSCONFDIR"):
        files.append(Path(directory) / "pg_service.conf")
    return files

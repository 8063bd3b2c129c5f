"""What asyncpg is told, of the database that a URL names.

What can go wrong: `ValueError`, a sentence that names the part of the URL, or the variable, and what to do.
"""

import getpass
import random
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from app.database_url.environment import read_environment
from app.database_url.options import read_options
from app.database_url.parameter import Parameter, Parameters, RefusedUrl
from app.database_url.parameters import KNOWN, check_values, whole
from app.database_url.password_file import fault, password_for
from app.database_url.places import Place, read_places
from app.database_url.service_file import read_service
from app.database_url.tls import check_tls, read_tls
from app.database_url.uri import read_uri

AS_THEY_ARE = ("sslmode", "sslnegotiation", "sslpassword", "krbsrvname", "gsslib")
"""What asyncpg takes from a URL as libpq does."""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database, as a URL and the environment name it."""

    places: tuple[Place, ...]
    """Where it may be. Hosts are tried in this order, unless `load_balance_hosts` is random."""
    settings: dict[str, str]
    """Server settings for each session."""
    connect_timeout: timedelta | None
    """How long it may take to connect to one host."""
    socket_options: tuple[tuple[int, int, int], ...]
    """Options for the socket, as `setsockopt` takes them."""
    _user: str
    _tls: dict[str, str] = field(repr=False)
    _parameters: Parameters = field(repr=False)

    @classmethod
    def read(cls, url: str, source: str = "the database URL") -> Self:
        """Reads a URL, whose sentences call it `source`. Where it is silent, its service counts, and then the
        environment. Opens no file but that of the service. Raises ValueError."""
        given = read_environment() | read_uri(url, source, KNOWN)
        if service := given.get("service"):
            given = read_environment() | read_service(service, KNOWN) | read_uri(url, source, KNOWN)
        if (old := given.get("requiressl")) and "sslmode" not in given:
            given["sslmode"] = Parameter("sslmode", "require" if old.value == "1" else "prefer", old.source)
        check_values(given)
        seconds = whole(given, "connect_timeout")
        return cls(
            places=read_places(given),
            settings=_settings(given),
            connect_timeout=timedelta(seconds=seconds) if seconds else None,
            socket_options=tuple(_socket_options(given)),
            _user=given["user"].value if "user" in given else _process_owner(source),
            _tls=read_tls(given),
            _parameters=given,
        )

    def check_files(self) -> None:
        """Reads the files that the URL names, so that a missing one is reported before anything connects. Raises
        ValueError."""
        named = self._parameters.get("passfile")
        if named and "password" not in self._parameters and (why := fault(Path(named.value))):
            raise named.refused(why)
        if not all(place.is_socket for place in self.places):
            check_tls(self._parameters)

    def attempts(self) -> list[dict[str, Any]]:
        """Returns arguments for `asyncpg.connect`, to be tried in this order, until one succeeds."""
        places = list(self.places)
        if self._value("load_balance_hosts") == "random":
            random.shuffle(places)
        wanted = self._value("target_session_attrs") or "any"
        passes = ("standby", "any") if wanted == "prefer-standby" else (wanted,)
        return [self._arguments(place, each) for each in passes for place in places]

    def _arguments(self, place: Place, session: str) -> dict[str, Any]:
        database = self._value("dbname") or self._user
        query = {"target_session_attrs": session}
        if place.is_socket:
            query["sslmode"] = "disable"  # As in libpq: there is no TLS on a unix socket.
        else:
            query |= {name: value for name in AS_THEY_ARE if (value := self._value(name))} | self._tls
        return {
            # asyncpg takes the files of certificates from a URL only. No blank may become a plus there.
            "dsn": f"postgresql://?{urlencode(query, quote_via=quote)}",
            "host": place.host,
            "port": place.port,
            "user": self._user,
            "database": database,
            "password": self._value("password") or self._filed_password(place, database),
        }

    def _filed_password(self, place: Place, database: str) -> str | None:
        file = self._value("passfile")
        return password_for(
            Path(file) if file else Path.home() / ".pgpass", place.host, place.port, database, self._user
        )

    def _value(self, name: str) -> str | None:
        parameter = self._parameters.get(name)
        return parameter.value if parameter else None


def _settings(given: Parameters) -> dict[str, str]:
    settings = read_options(given["options"]) if "options" in given else {}
    if name := given.get("application_name") or given.get("fallback_application_name"):
        settings["application_name"] = name.value
    return settings


def _socket_options(given: Parameters) -> list[tuple[int, int, int]]:
    options = []
    wanted = [name for name in given if name.startswith("keepalives")]
    if wanted and ("keepalives" not in given or given["keepalives"].value == "1"):
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        for name, option in (("idle", "TCP_KEEPIDLE"), ("interval", "TCP_KEEPINTVL"), ("count", "TCP_KEEPCNT")):
            if number := whole(given, f"keepalives_{name}"):
                options.append((socket.IPPROTO_TCP, getattr(socket, option), number))
    if milliseconds := whole(given, "tcp_user_timeout"):
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds))
    return options


def _process_owner(source: str) -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise RefusedUrl(
            f"There is no user in {source}, and this process has none: write user@ before the host."
        ) from None

"""Reads the URL of a Redis, and refuses one that would not do what it says.

    redis://[username:password@]host[:port][/number]            [?client_name=…]
    rediss://[username:password@]host[:port][/number]           [?ssl_ca_certs=…]    with TLS
    unix://[username:password@]/path/to/socket                  [?db=number]

By itself, redis-py lets a URL override what its caller has set, ignores a database number that it cannot read, and
takes an unencoded / in a password for the end of the host.

What can go wrong: `ValueError`, a sentence that names the part. It never contains what may be a password.
"""

import re
from difflib import get_close_matches
from inspect import signature
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import parse_qsl, unquote

from redis.asyncio import BlockingConnectionPool, Connection
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection

from .redis_tls import TLS, tls_arguments

URL = re.compile(r"(redis|rediss|unix)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:]*))?")
SCHEMES = "redis://, rediss:// or unix://"
OURS = {
    name for kind in (BlockingConnectionPool, Connection, AbstractConnection) for name in signature(kind).parameters
}
"""What redis-py would take from a URL. Except for what is `TAKEN`, `connection.py` decides it."""
TAKEN = ("db", "username", "password", "client_name", *TLS)
MAYBE_SECRET = "has an unknown parameter, which may be a part of a password: there, write ? as %3F and & as %26"
"""The name of a parameter after an unencoded ? or & may be the rest of a password, so it is not shown."""


def read_redis_url(url: str, name: str = "the Redis URL") -> dict[str, Any]:
    """Returns the arguments for redis-py's connection pool. Its sentences call the URL `name`. Raises ValueError."""
    return _Reader(name).read(url)


class _Reader:
    """Reads one URL."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shows = False
        """Whether no part but the first may hold a password."""

    def read(self, url: str) -> dict[str, Any]:
        match = URL.fullmatch(url)
        if match is None:
            raise self._refused(f"must begin with {SCHEMES}")
        scheme, authority, path, query, fragment = match.groups()
        self._refuse_unencoded(url, scheme, authority, path, fragment)
        login, _, place = authority.rpartition("@")
        self._shows = "@" in authority or ":" not in authority
        arguments = self._parameters(scheme, query or "", spilt="@" in (query or ""))
        username, _, password = login.partition(":")
        for part, text in (("username", username), ("password", password)):
            if text and part in arguments:
                raise self._refused(f"has two {part}s: keep the one before the @, or {part}=")
            if text:
                arguments[part] = self._decoded(text, part)
        if scheme == "unix":
            if place or not path.strip("/"):
                raise self._refused("must name its socket after three slashes, as in unix:///run/redis.sock")
            return {**arguments, "path": self._decoded(path, "path"), "connection_class": UnixDomainSocketConnection}
        if path.strip("/") or path.count("/") > 1:
            if "db" in arguments:
                raise self._refused("has two database numbers: keep the one after the host, or db=")
            arguments["db"] = self._number(path[1:], "database", "after the host, as in /1")
        if scheme == "rediss":
            arguments["connection_class"] = SSLConnection
        return {**arguments, **self._place(place)}

    def _refused(self, why: str) -> ValueError:
        return ValueError(f"{self._name[0].upper()}{self._name[1:]} {why}.")

    def _invalid(self, part: str, value: str, rule: str) -> ValueError:
        """Returns the error for a part with an invalid value, which is shown if it cannot be a part of a password."""
        shown = f"is {value!r}, and " if self._shows else ""
        return ValueError(f"The {part} in {self._name} {shown}must be {rule}.")

    def _unencoded(self, letter: str) -> ValueError:
        return self._refused(f"has a {letter} in the wrong place: in a password, write it as %{ord(letter):02X}")

    def _refuse_unencoded(self, url: str, scheme: str, authority: str, path: str, fragment: str | None) -> None:
        """Refuses characters that end the host early, or begin it late, because they were meant for the password."""
        if re.search(r"[\x00-\x20\x7f]", url):
            raise self._refused("contains a blank or a control character: write it as %20, or as what its code is")
        if authority.count("@") > 1:
            raise self._unencoded("@")
        is_socket = scheme == "unix" and (not authority or authority.endswith("@"))
        if "@" in path and not is_socket:
            raise self._unencoded("@" if "@" in authority else "/")
        if fragment is not None:
            raise self._unencoded("#")

    def _decoded(self, text: str, part: str) -> str:
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise self._refused(f"has a % in its {part} without two hexadecimal digits: write it as %25")
        try:
            return unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise self._refused(f"has a {part} that is not UTF-8 once it is decoded") from None

    def _number(self, text: str, part: str, where: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text):
            raise self._invalid(part, text, f"a number {where}")
        return int(text)

    def _place(self, place: str) -> dict[str, Any]:
        match = HOST.fullmatch(place)
        if match is None:
            raise self._invalid("host", place, "a name or an address, and an IPv6 address must have brackets")
        host, port = self._decoded(match[1], "host"), match[2]
        arguments: dict[str, Any] = {}
        if host.startswith("["):
            host = host[1:-1]
            try:
                IPv6Address(host)
            except ValueError:
                raise self._invalid("host", place, "an IPv6 address where it has brackets") from None
        elif not re.fullmatch(r"[\w.-]*", host):
            raise self._invalid("host", host, "a name or an address")
        if host:
            arguments["host"] = host
        if port:
            if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
                raise self._invalid("port", port, "a number from 1 to 65535")
            arguments["port"] = int(port)
        return arguments

    def _parameters(self, scheme: str, query: str, *, spilt: bool) -> dict[str, Any]:
        """Reads what follows the question mark. If it contains an @, it may be a part of a password (`spilt`): then no
        sentence quotes it."""
        try:
            return self._known(scheme, query)
        except ValueError:
            if spilt and not self._only_taken(query):
                raise self._unencoded("?") from None
            raise

    def _only_taken(self, query: str) -> bool:
        return all(part.partition("=")[0] in TAKEN for part in query.split("&"))

    def _known(self, scheme: str, query: str) -> dict[str, Any]:
        self._decoded(query, "query")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
        except ValueError:
            raise self._refused("must have parameters like name=value after its ?, with & between") from None
        parameters: dict[str, str] = {}
        for name, value in pairs:
            if name not in TAKEN and re.search("(^|&)(ssl_)?password=", query):
                raise self._refused(MAYBE_SECRET)
            if name in OURS - set(TAKEN):
                raise self._refused(f"has the parameter {name}, which a URL may not set: the cache decides it")
            if name not in TAKEN:
                near = get_close_matches(name, TAKEN, 1) or [f"one of {', '.join(TAKEN)}"]
                raise self._refused(f"has the unknown parameter {name}: perhaps {near[0]} is meant")
            if name in parameters:
                raise self._refused(f"has the parameter {name} twice")
            if name in TLS and scheme != "rediss":
                raise self._refused(f"has the parameter {name}, which needs rediss://")
            if not value:
                raise self._refused(f"has the parameter {name} without a value")
            parameters[name] = value
        arguments: dict[str, Any] = {name: value for name, value in parameters.items() if name not in TLS}
        if "db" in parameters:
            arguments["db"] = self._number(parameters["db"], "db", "like 1")
        tls = {name: value for name, value in parameters.items() if name in TLS}
        return {**arguments, **tls_arguments(tls, self._name)}

"""Reads the URL of a Redis, and refuses one that would not do what it says.

    redis://[username:password@]host[:port][/number]            [?client_name=…]
    rediss://[username:password@]host[:port][/number]           [?ssl_ca_certs=…]    with TLS
    unix://[username:password@]/path/to/socket                  [?db=number]
    redis+sentinel://[username:password@]host[:port],…/primary[/number]          Sentinels, and the name they monitor
    redis+cluster://[username:password@]host[:port],…                            some nodes of a cluster
    rediss+sentinel://…, rediss+cluster://…                                      with TLS, to all of them

The login is the primary's. The Sentinels' own login is in `sentinel_username` and `sentinel_password`.

By itself, redis-py lets a URL override what its caller has set, ignores a database number that it cannot read, and
takes an unencoded / in a password for the end of the host.

What can go wrong: `ValueError`, a sentence that names the part. It never contains what may be a password.
"""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import signature
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import parse_qsl, unquote

from redis.asyncio import BlockingConnectionPool, Connection
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection

from .redis_tls import TLS, tls_arguments

URL = re.compile(r"(rediss?(?:\+sentinel|\+cluster)?|unix)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:]*))?")
SCHEMES = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
PORT, SENTINEL_PORT = 6379, 26379
OURS = {
    name for kind in (BlockingConnectionPool, Connection, AbstractConnection) for name in signature(kind).parameters
}
"""What redis-py would take from a URL. Except for what is `TAKEN`, `connection.py` decides it."""
OF_SENTINELS = ("sentinel_username", "sentinel_password")
TAKEN = ("db", "username", "password", "client_name", *OF_SENTINELS, *TLS)
MAYBE_SECRET = "has an unknown parameter, which may be a part of a password: there, write ? as %3F and & as %26"
"""The name of a parameter after an unencoded ? or & may be the rest of a password, so it is not shown."""


Place = tuple[str, int]
"""A host and a port."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where the Sentinels are, how to log in there, and under which name they know the `primary`."""

    places: tuple[Place, ...]
    primary: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def read_redis_url(url: str, name: str = "the Redis URL") -> dict[str, Any]:
    """Returns the arguments for redis-py's connection pool. In place of a host, they have a `discovery` if the URL
    names Sentinels, and `nodes` if it names those of a cluster. Its sentences call the URL `name`. Raises ValueError.
    """
    return _Reader(name).read(url)


def names_cluster(url: str) -> bool:
    """Whether the URL names a cluster. Raises ValueError."""
    return "nodes" in read_redis_url(url)


def node_url(url: str, place: Place) -> str:
    """Returns the URL of one node of the cluster at `url`, which was read already."""
    match = URL.fullmatch(url)
    assert match is not None
    scheme, authority, _path, query, _fragment = match.groups()
    login, at, _places = authority.rpartition("@")
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    return f"{scheme.removesuffix('+cluster')}://{login}{at}{host}:{place[1]}" + (f"?{query}" if query else "")


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
        spilt = "@" in (query or "")
        self._shows = ("@" in authority or ":" not in authority) and not spilt
        if scheme != "unix" and not spilt:
            self._places(place)  # A wrong port may be a password without a host. Nothing after it is quoted then.
        arguments = self._parameters(scheme, query or "", spilt=spilt)
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
        if scheme.startswith("rediss"):
            arguments["connection_class"] = SSLConnection
        if scheme.endswith("sentinel"):
            path = self._find(arguments, place, path)
        if scheme.endswith("cluster"):
            if path not in ("", "/", "/0") or arguments.pop("db", 0):
                raise self._refused("names a database, and a cluster has only the database 0: leave it out")
            nodes = [(each.get("host", "localhost"), each.get("port", PORT)) for each in self._places(place)]
            return {**arguments, "nodes": nodes}
        if path.strip("/") or path.count("/") > 1:
            if "db" in arguments:
                raise self._refused("has two database numbers: keep the one after the host, or db=")
            arguments["db"] = self._number(path[1:], "database", "after the host, as in /1")
        return arguments if scheme.endswith("sentinel") else {**arguments, **self._place(place)}

    def _find(self, arguments: dict[str, Any], place: str, path: str) -> str:
        """Adds the discovery to `arguments`, and returns the rest of the path."""
        primary, slash, rest = path.removeprefix("/").partition("/")
        primary = self._decoded(primary, "path")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", primary):
            raise self._refused(
                "must have the name that the Sentinels monitor after the hosts, as in h1,h2,h3/mymaster"
            )
        login = [arguments.pop(each, None) for each in OF_SENTINELS]
        if login[0] and not login[1]:
            raise self._refused("has a sentinel_username without a sentinel_password")
        places = [(each.get("host", "localhost"), each.get("port", SENTINEL_PORT)) for each in self._places(place)]
        arguments["discovery"] = Discovery(tuple(places), primary, *login)
        return slash + rest

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

    def _places(self, place: str) -> list[dict[str, Any]]:
        """Reads hosts with commas between."""
        places = place.split(",")
        if len(places) > 1 and not all(places):
            raise self._refused("has a comma without a host before and after it")
        return [self._place(each) for each in places]

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
            if name not in TAKEN and re.search("(^|&)(ssl_|sentinel_)?password=", query):
                raise self._refused(MAYBE_SECRET)
            if name in OURS - set(TAKEN):
                raise self._refused(f"has the parameter {name}, which a URL may not set: the cache decides it")
            if name not in TAKEN:
                near = get_close_matches(name, TAKEN, 1) or [f"one of {', '.join(TAKEN)}"]
                raise self._refused(f"has the unknown parameter {name}: perhaps {near[0]} is meant")
            if name in parameters:
                raise self._refused(f"has the parameter {name} twice")
            if name in TLS and not scheme.startswith("rediss"):
                raise self._refused(f"has the parameter {name}, which needs rediss:// or rediss+…://")
            if name in OF_SENTINELS and not scheme.endswith("sentinel"):
                raise self._refused(f"has the parameter {name}, which needs redis+sentinel://")
            if not value:
                raise self._refused(f"has the parameter {name} without a value")
            parameters[name] = value
        arguments: dict[str, Any] = {name: value for name, value in parameters.items() if name not in TLS}
        if "db" in parameters:
            arguments["db"] = self._number(parameters["db"], "db", "like 1")
        tls = {name: value for name, value in parameters.items() if name in TLS}
        return {**arguments, **tls_arguments(tls, self._name, shows=self._shows)}

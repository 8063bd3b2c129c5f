"""The parts of a Postgres URL, by the names of libpq's parameters.

    postgresql://me:secret@h:1,i/shop?sslmode=require
    →  user, password, host "h,i", port "1,", dbname "shop", sslmode "require"

What can go wrong: `ValueError`, a sentence that names the part. It never contains what may be a password: where a
character was not percent-encoded, any part may be one.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import unquote

from app.database_url.parameter import Parameter, RefusedUrl

URI = re.compile(
    r"(?:postgresql|postgres|postgresql\+asyncpg)://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?(#.*)?", re.DOTALL
)
PLACE = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([^:]*))?")
MAYBE_SECRET = "has an unknown parameter, which may be a part of a password: there, write ? as %3F and & as %26"
"""The name of a parameter after an unencoded ? or & may be the rest of a password, so it is not shown."""


def is_port(text: str) -> bool:
    """Whether this is a number from 1 to 65535."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65_535


def read_uri(url: str, source: str, known: Iterable[str]) -> dict[str, Parameter]:
    """Returns the parameters that a URL gives, all of them `known`. Raises ValueError, whose sentence calls the URL
    `source`."""
    return _Reader(source, tuple(known)).read(url)


class _Reader:
    """Reads one URL."""

    def __init__(self, source: str, known: tuple[str, ...]) -> None:
        self._source, self._known = source, known

    def read(self, url: str) -> dict[str, Parameter]:
        match = URI.fullmatch(url)
        if match is None:
            raise self._refused("must begin with postgresql:// or postgres://")
        authority, path, query, fragment = match.groups()
        self._refuse_unencoded(url, authority, path or "", fragment)
        try:
            return self._parameters(authority, path or "", query or "")
        except RefusedUrl:
            # An @ in a parameter is allowed. But where anything is wrong, it may be the end of a password.
            if "@" in (query or "") and "@" not in authority:
                raise self._unencoded("?") from None
            raise

    def _refused(self, why: str) -> RefusedUrl:
        return RefusedUrl(f"{self._source[0].upper()}{self._source[1:]} {why}.")

    def _unencoded(self, letter: str) -> RefusedUrl:
        return self._refused(f"has a {letter} in the wrong place: in a password, write it as %{ord(letter):02X}")

    def _refuse_unencoded(self, url: str, authority: str, path: str, fragment: str | None) -> None:
        """Refuses characters that end the host early, or begin it late, because they were meant for the password."""
        if re.search(r"[\x00-\x1f\x7f]", url) or " " in authority:
            raise self._refused("contains a blank or a control character: write it as %20, or as what its code is")
        if authority.count("@") > 1:
            raise self._unencoded("@")
        if "@" in path:
            raise self._unencoded("@" if "@" in authority else "/")
        if fragment is not None:
            raise self._unencoded("#")

    def _parameters(self, authority: str, path: str, query: str) -> dict[str, Parameter]:
        login, at, places = authority.rpartition("@")
        user, _, password = login.partition(":")
        found = {"user": self._decoded(user, "user"), "password": self._decoded(password, "password")}
        if places:
            found |= self._places(places, shows=bool(at) or ":" not in places)
        found["dbname"] = self._decoded(path, "dbname")
        for pair in query.split("&") if query else []:
            name, equals, value = pair.partition("=")
            name = self._decoded(name, "query")
            if not equals:
                raise self._refused("must have parameters like name=value after its ?, with & between")
            value = self._decoded(value, name if name in self._known else "query")
            if (name, value) == ("ssl", "true"):  # The one parameter of JDBC that libpq takes.
                name, value = "sslmode", "require"
            if name not in self._known:
                if re.search("@|(^|&)(ssl)?password=", query):
                    raise self._refused(MAYBE_SECRET)
                raise self._refused(f"has the unknown parameter {name}: {self._advice(name)}")
            found[name] = value
        return {name: Parameter(name, value, self._source) for name, value in found.items() if value}

    def _advice(self, name: str) -> str:
        if near := get_close_matches(name, self._known, 1):
            return f"perhaps {near[0]} is meant"
        if "_" in name or "." in name:
            return f"if it is a setting of Postgres, write options=-c%20{name}%3D…"
        return "leave it out"

    def _places(self, places: str, *, shows: bool) -> dict[str, str]:
        hosts, ports = [], []
        for place in places.split(","):
            match = PLACE.fullmatch(place)
            if match is None or match[1] == "" or not (match[1] or match[2] or "," not in places):
                shown = f" {place!r}" if shows else ""
                raise self._refused(
                    f"has a host{shown} that cannot be read: write : as %3A, and an IPv6 address in brackets"
                )
            if match[3] and not shows and not is_port(match[3]):
                raise self._refused("has a port that is not a number from 1 to 65535")
            hosts.append(self._decoded(match[1] or match[2] or "", "host"))
            ports.append(self._decoded(match[3] or "", "port"))
        return {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else ""}

    def _decoded(self, text: str, part: str) -> str:
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise self._refused(f"has a % in its {part} without two hexadecimal digits: write it as %25")
        try:
            decoded = unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise self._refused(f"has a {part} that is not UTF-8 once it is decoded") from None
        if "\0" in decoded:
            raise self._refused(f"has a {part} with the character %00, which Postgres cannot take")
        return decoded

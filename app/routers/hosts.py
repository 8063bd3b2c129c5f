"""The names that this service answers to, and the sites whose pages may write.

A browser does not let a page read the answers of another site. Two attacks bypass that, even for a service that listens
only on the loopback:

    a page of evil.example points its own name at 127.0.0.1, and reads everything here (DNS rebinding)
    a page of evil.example sends a POST that needs no CORS preflight: without a body, or with a form's

So a Host that is a name must be a known one. An IP address is safe, because no name was resolved to reach this service.
A request that would change something is refused if the browser says that a page of another site sent it, including a
neighbouring site, like another port or subdomain. Clients other than browsers send no such header.

What can go wrong: any page on the loopback may write, whoever put it there.
"""

import re
from collections.abc import Awaitable, Iterable, Mapping
from ipaddress import ip_address

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.header_fields import header_fields
from app.routers.problems import problem
from app.routers.refusals import short

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing."""
ASIDE = frozenset({b"origin", b"sec-fetch-site"})
"""The headers in which a browser names the site of the page."""
OURSELVES = frozenset({b"same-origin", b"none"})
"""The values of Sec-Fetch-Site for a page of this service, and for a typed address."""
AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:\[\]/@]+))(?::[0-9]*)?")
MOST_KNOWN = 1000


class Hosts:
    """The middleware. `allowed` lists names; `*.example.com` stands for all subdomains, `*` for any name."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        named = {"localhost", *allowed}
        self._any = "*" in named
        self._below = tuple(name[1:] for name in named if name.startswith("*."))
        self._names = {name for name in named if "*" not in name}
        # Raw header values, so that a request costs one lookup in a set.
        self._known: set[bytes] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not `async`, which would cost each request another coroutine. Nearly all of them need no further check.
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        headers = header_fields(scope)
        usual = headers.get(b"host") in self._known and len(headers) == len(scope["headers"])
        if usual and (scope["method"] in SAFE or ASIDE.isdisjoint(headers)):
            return self._app(scope, receive, send)
        refused = self._refusal(scope, headers)
        return (self._app if refused is None else refused)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """Returns the answer that refuses a request, or None to let it through."""
        host = headers.get(b"host")
        if host not in self._known and (refused := self._unknown(host, scope["http_version"])) is not None:
            return refused
        if sum(name == b"host" for name, _value in scope["headers"]) > 1:
            return problem(400, "unknown-host", "There is more than one Host in the request.")
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if scope["method"] in SAFE or site in OURSELVES or (site is None and origin is None):
            return None
        return self._foreign(host, site, origin)

    def _unknown(self, host: bytes | None, version: str) -> Response | None:
        if host is None:
            return problem(400, "unknown-host", "There is no Host in the request.") if version != "1.0" else None
        text = host.decode("latin-1").strip(" \t")  # The parser leaves trailing whitespace (RFC 9110, section 5.5).
        if text and not self._any and not self._is_ours(text) and not _is_address(text):
            says = f"This service does not answer to {short(text)}: if it should, name it in FOURWAYS_ALLOWED_HOSTS."
            return problem(400, "unknown-host", says)
        if len(self._known) < MOST_KNOWN:
            self._known.add(host)
        return None

    def _foreign(self, host: bytes | None, site: bytes | None, origin: bytes | None) -> Response | None:
        scheme, _, whose = (origin or b"").decode("latin-1").partition("://")
        # An older browser sends only Origin.
        if site is None and host is not None and whose == host.decode("latin-1").lower():
            return None
        if whose and self._is_ours(whose):
            return None
        page = f"a page of {short(f'{scheme}://{whose}')}" if whose else "a page of another site"
        way_out = "if it may write, name its host in FOURWAYS_ALLOWED_HOSTS"
        return problem(403, "forbidden", f"This was sent by {page}, which may only read: {way_out}.")

    def _is_ours(self, authority: str) -> bool:
        name = _name(authority)
        return name in self._names or name.endswith(self._below) or (_is_address(authority) and _is_loopback(name))


def _name(authority: str) -> str:
    """Returns the host of `host:port`, or "" if it is malformed."""
    match = AUTHORITY.fullmatch(authority.lower())
    return "" if match is None else match[1] or match[2].removesuffix(".")


def _is_address(authority: str) -> bool:
    try:
        ip_address(_name(authority))
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback

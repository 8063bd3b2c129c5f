"""The codings that a body may have: none but chunks (RFC 9110, section 8.4; RFC 9112, section 6.1).

What can go wrong: a compressed body is read as if it were not. If a header has several lines, all of them count.
"""

from collections.abc import Iterable, Mapping

from starlette.responses import Response

from app.routers.problems import problem
from app.routers.refusals import short

READ = frozenset({"POST", "PUT", "PATCH"})
"""The methods whose body is read."""

Fields = Iterable[tuple[bytes, bytes]]


def unknown_coding(method: str, lines: Fields, fields: Mapping[bytes, bytes]) -> Response | None:
    """Returns the answer that refuses a body, or None to accept it. `fields` holds the last of the `lines` per name."""
    in_chunks = b"transfer-encoding" in fields
    if in_chunks and (others := _named(lines, b"transfer-encoding", "chunked")):
        says = f"Of transfer codings only chunked is known here, and not {short(others)}."
        return problem(501, "not-implemented", says)
    has_body = in_chunks or fields.get(b"content-length", b"0") != b"0"
    if method in READ and has_body and (others := _named(lines, b"content-encoding", "identity")):
        says = f"The body must be sent as it is, and not with Content-Encoding: {short(others)}."
        return problem(415, "unsupported-media-type", says, headers={"Accept-Encoding": "identity"})
    return None


def _named(lines: Fields, field: bytes, known: str) -> str:
    """Returns the values in all lines of a field, except the known one."""
    named = b",".join(value for name, value in lines if name == field).decode("latin-1").lower().split(",")
    return ", ".join(one.strip() for one in named if one.strip() not in ("", known))

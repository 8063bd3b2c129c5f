"""Limits the head of a request: the length of its URL, and the total length and number of its header fields.

What can go wrong: an endless head fills the memory, and a long one takes time wherever it is read. So a head is checked
while it arrives.
"""

from collections.abc import Sequence

from fastapi.responses import JSONResponse

from app.routers.problems import problem
from app.settings import Settings


def too_long(url: bytes, fields: Sequence[tuple[bytes, bytes]], unread: int, most: Settings) -> JSONResponse | None:
    """Returns why a head, as far as it has arrived, is refused, or None to accept it. `unread` is the number of bytes
    that are not among the `fields` yet: the beginning of a field that has not ended, or not yet reported."""
    if len(url) > most.url_bytes:
        return problem(414, "uri-too-long", f"The URL is longer than {most.url_bytes:,} bytes.")
    if unread > most.header_bytes or sum(len(name) + len(value) + 4 for name, value in fields) > most.header_bytes:
        return _fields(f"The header fields are longer than {most.header_bytes:,} bytes together.")
    if len(fields) > most.header_count:
        return _fields(f"There are {len(fields):,} header fields, and {most.header_count:,} are allowed.")
    return None


def _fields(detail: str) -> JSONResponse:
    return problem(431, "request-header-fields-too-large", detail)

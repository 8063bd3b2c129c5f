"""How long the head of a request may be: its URL, and its header fields by their bytes and by their number.

What can go wrong: a head that never ends is kept as it comes, and a long one takes time, wherever it is read. So it is
looked at while it grows.
"""

from collections.abc import Sequence

from fastapi.responses import JSONResponse

from app.routers.problems import problem
from app.settings import Settings


def too_long(url: bytes, fields: Sequence[tuple[bytes, bytes]], unread: int, most: Settings) -> JSONResponse | None:
    """Why a head is refused, as far as it has come; None if it may be. `unread` bytes of fields have come in vain: they
    are the beginning of one that has not ended, or stand where no field is known yet."""
    if len(url) > most.url_bytes:
        return problem(414, "uri-too-long", f"The URL is longer than {most.url_bytes:,} bytes.")
    if unread > most.header_bytes or sum(len(name) + len(value) + 4 for name, value in fields) > most.header_bytes:
        return _fields(f"The header fields are longer than {most.header_bytes:,} bytes together.")
    if len(fields) > most.header_count:
        return _fields(f"There are {len(fields):,} header fields, and {most.header_count:,} are allowed.")
    return None


def _fields(detail: str) -> JSONResponse:
    return problem(431, "request-header-fields-too-large", detail)

"""The id of the request that is being answered: it stands in the log, and in the answers that send a person there.

    X-Request-ID    what the client or a proxy has sent, if it is sane
    traceparent     else its trace id (W3C Trace Context)
    neither         then one is made when it is needed, so that a request without a line in the log costs nothing

What can go wrong: a task that a request starts belongs to it, too, and logs under its id.
"""

import re
import secrets
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

from app.header_fields import header_fields

CURRENT: ContextVar[MutableMapping[str, Any] | None] = ContextVar("request", default=None)
"""The ASGI scope of the request. It is set for each request: the task of a pipelined one inherits that of another."""
KEPT = "fourways.request_id"
"""Where the id stands in the scope once it was needed."""
HEADER = b"x-request-id"
SANE = re.compile(rb"[!-~]{1,128}")
"""An id without blanks and control characters, which could forge a line of the log."""
TRACE = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def request_id() -> str | None:
    """Returns the id of the current request, or None outside of one."""
    scope = CURRENT.get()
    if scope is None:
        return None
    if KEPT not in scope:
        headers = header_fields(scope)
        trace = TRACE.fullmatch(headers.get(b"traceparent", b""))
        known = sent_id(headers) or (trace[1] if trace else None)
        scope[KEPT] = known.decode() if known else secrets.token_hex(16)
    kept: str = scope[KEPT]
    return kept


def sent_id(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Returns the X-Request-ID of a request, if it has one that is sane."""
    sent = headers.get(HEADER)
    return sent if sent is not None and SANE.fullmatch(sent) else None

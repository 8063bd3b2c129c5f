"""The absolute form of a request target, which names the host as for a proxy (RFC 9112, section 3.2.2).

    GET http://shop.example/users/1 HTTP/1.1 · Host: localhost     is  GET /users/1 · Host: shop.example
    GET http://shop.example HTTP/1.1 · Host: shop.example          is  GET / · Host: shop.example

What can go wrong: one name is checked while the other one is meant. So the target's host replaces the Host field. But
where the request must be refused for its Host fields, because there is none or more than one, they are kept.
"""

import re

ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def origin_form(target: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> bytes | None:
    """Returns the path and query of the target, and makes its authority the Host among the `fields`. None if the target
    is malformed."""
    if target[:1] == b"/" or target == b"*":
        return target
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    hosts = sum(name == b"host" for name, _value in fields)
    if hosts == 1 or (not hosts and version == "1.0"):
        fields[:] = [(b"host", match[1]), *(field for field in fields if field[0] != b"host")]
    return (match[2] or b"/") + match[3]

"""The target of a request that names the service, too: the absolute form, as for a proxy (RFC 9112, section 3.2.2).

    GET http://shop.example/users/1 HTTP/1.1 · Host: localhost     is  GET /users/1 · Host: shop.example
    GET http://shop.example HTTP/1.1 · Host: shop.example          is  GET / · Host: shop.example

What can go wrong: the one name is judged, and the other one meant. So what the target names is what there is, and Host
is forgotten; but where a request has to be refused for its Hosts, for there is none, or more than one, they stay.
"""

import re

ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)


def origin_form(target: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> bytes | None:
    """The path and query of the target, whose authority becomes the Host among the `fields`. None if it has neither."""
    if target[:1] == b"/" or target == b"*":
        return target
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    hosts = sum(name == b"host" for name, _value in fields)
    if hosts == 1 or (not hosts and version == "1.0"):
        fields[:] = [(b"host", match[1]), *(field for field in fields if field[0] != b"host")]
    return (match[2] or b"/") + match[3]

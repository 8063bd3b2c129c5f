"""A request that asks for another protocol, without asking for it.

Nobody speaks another one here, so that is ignored (RFC 9110, section 7.8), and its body belongs to it. The parser reads
no body behind such a head: so it reads this one in its place. CONNECT always asks for a tunnel, and has no path.
"""

from collections.abc import Sequence


def without_upgrade(method: bytes, target: bytes, version: str, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The same head in HTTP/1."""
    if method == b"CONNECT":
        method, target = b"OPTIONS", b"/"
    lines = [b"%b: %b" % field for field in fields if field[0] != b"upgrade"]
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, target, version.encode()), *lines, b"", b""])

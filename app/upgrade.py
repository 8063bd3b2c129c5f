"""Rewrites the head of a request that asks for another protocol.

No other protocol is supported, so the Upgrade is ignored (RFC 9110, section 7.8), and the body belongs to the request.
The parser reads no body after such a head, so it parses the rewritten head instead. CONNECT always asks for a tunnel,
and has no path.
"""

from collections.abc import Sequence


def without_upgrade(method: bytes, target: bytes, version: str, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Returns the head in HTTP/1 without Upgrade. CONNECT becomes OPTIONS /."""
    if method == b"CONNECT":
        method, target = b"OPTIONS", b"/"
    lines = [b"%b: %b" % field for field in fields if field[0] != b"upgrade"]
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, target, version.encode()), *lines, b"", b""])

"""The path below which a proxy serves this service, as in `/api`.

Every link begins with it, so it must not lead elsewhere: a browser reads `//evil.example/users/1` as another host.
"""

import re

PLAIN = re.compile(r"(?!.*//)(?!.*/\.{1,2}(/|$))/[A-Za-z0-9._~/-]{0,255}")


def plain_path(text: str) -> str | None:
    """Returns the path without a slash at its end, "" for `/`, or None if it is not plain."""
    return text.rstrip("/") if PLAIN.fullmatch(text) else None

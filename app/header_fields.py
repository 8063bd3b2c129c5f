"""The header fields of a request by name: each middleware needs them, and a dict is made once for all.

What can go wrong: a middleware that changes the headers of a scope must also drop `BY_NAME`. Ours change none, and
others' see the request before ours do.
"""

from collections.abc import MutableMapping
from typing import Any

BY_NAME = "fourways.headers"


def header_fields(scope: MutableMapping[str, Any]) -> dict[bytes, bytes]:
    """Returns the fields, with the last value of each."""
    fields: dict[bytes, bytes] | None = scope.get(BY_NAME)
    if fields is None:
        fields = scope[BY_NAME] = dict(scope["headers"])
    return fields

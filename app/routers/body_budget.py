"""Limits how many bytes of large bodies one process holds, over all connections.

    150 clients send 4 MB each, and none of them finishes · every body is within its own limit · 600 MB are held

So the part of a body beyond the ordinary limit is charged to a budget until its request is answered. When the budget is
used up, a body that needs more is refused. Ordinary bodies are never refused: the limit on connections bounds their
number.

What can go wrong: clients that send large bodies slowly use up the budget. `FOURWAYS_BODY_TIMEOUT` bounds for how long,
and only calls with large bodies are refused meanwhile.
"""

from starlette.exceptions import HTTPException


class BodyBudget:
    """The budget of a process: `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def charge(self, size: int) -> None:
        """Takes `size` bytes from the budget. Raises HTTPException with status 503 if fewer are left."""
        if size > self._left:
            raise HTTPException(
                503,
                f"The large bodies that are being sent take more than {self._most:,} bytes together.",
                {"Retry-After": "1"},
            )
        self._left -= size

    def release(self, size: int) -> None:
        """Returns `size` bytes to the budget."""
        self._left += size

"""How many bytes of large bodies one process keeps, over all connections.

    150 clients send 4 MB each, and none of them comes to an end · every body is within its own limit · 600 MB are kept

So what a body has beyond the limit of an ordinary one is charged to a budget, until its request is answered. Where
nothing is left, the body that wants more is refused. Ordinary bodies are never refused: their number is bounded by that
of the connections.

What can go wrong: clients that send large bodies slowly use the budget up. `FOURWAYS_BODY_TIMEOUT` bounds for how long,
and only calls with large bodies are refused meanwhile.
"""

from starlette.exceptions import HTTPException


class BodyBudget:
    """The budget of a process: `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def charge(self, size: int) -> None:
        """Takes `size` bytes from the budget. Raises HTTPException with status 503 when there are not so many left."""
        if size > self._left:
            raise HTTPException(
                503,
                f"The large bodies that are being sent take more than {self._most:,} bytes together.",
                {"Retry-After": "1"},
            )
        self._left -= size

    def release(self, size: int) -> None:
        """Gives `size` bytes back."""
        self._left += size

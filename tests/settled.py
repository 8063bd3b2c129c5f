"""The wait of a region after a failed invalidation: none, because these tests have no relay that could invalidate."""


async def settled(key: object) -> None:
    """Returns at once."""

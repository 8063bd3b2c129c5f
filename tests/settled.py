"""What a region waits for when an invalidation failed: here nothing, where no relay could carry it."""


async def settled(key: object) -> None:
    """Returns at once."""

"""Changes of stock and views in some slots, on each instance. They need Redis: when all are answered, all is served."""

import asyncio
from collections.abc import Iterable, Sequence

from tests.eventually import eventually
from tests.keyed import Keyed
from tests.outages.cluster.deployment import Deployment
from tests.outages.cluster.slots import SHARDS, of_page

PAGES = {of_page(page): page for page in (f"probe/{number}" for number in range(50))}
"""A page in each shard, by its slot."""


async def all_served(deployment: Deployment, connections: Sequence[Keyed], slots: Iterable[int]) -> None:
    """Returns when each instance has taken changes in these slots."""
    probes = _probes(deployment, slots)
    await asyncio.gather(*(_served(connection, probes) for connection in connections))


async def _served(connection: Keyed, probes: Sequence[tuple[str, object]]) -> None:
    for path, body in probes:

        async def is_taken() -> bool:
            return (await connection.post(path, body)).status in (200, 202)  # noqa: B023  # It is awaited here.

        await eventually(is_taken)


def _probes(deployment: Deployment, slots: Iterable[int]) -> list[tuple[str, object]]:
    probes: list[tuple[str, object]] = []
    for slot in sorted(deployment.slots.intersection(slots)):
        probes.append((f"/inventory/{deployment.probes[slot]}/adjustments", {"delta": 1}))
        if slot in SHARDS.values():
            probes.append((f"/page-views/{PAGES[slot]}", {"count": 1}))
    return probes

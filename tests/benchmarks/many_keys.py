"""What many keys in one request cost: `GET /products?sku=…` with 50 hits, beside a single hit."""

import random
from collections.abc import Mapping

from tests.benchmarks.catalogue import asks, fill
from tests.benchmarks.hit_over_http import ask_each
from tests.benchmarks.load import Ask, drive
from tests.benchmarks.measurement import Goal, Result, Sample, Variant, compared, interleave, rates
from tests.benchmarks.stage import Server, Stage, peer, service

QUESTION = "What do 50 keys in one request cost, beside one?"
KEYS = 50
REQUESTS = 200
ONE, MANY, PEER = "1 key", f"{KEYS} keys", f"FastAPI + MGET, {KEYS} keys"


async def measure(stage: Stage) -> Result:
    """Measures with 64 connections."""
    products = await fill(stage.endpoints)
    async with service(stage) as ours, peer(stage, "plain") as plain:
        await ask_each(ours, asks(products))

        def variant(name: str, server: Server, these: list[Ask]) -> Variant:
            async def turn() -> Sample:
                return await drive(server, these, connections=64, turn=stage.size.turn)

            return Variant(name, turn)

        many = _many(products)
        variants = [
            variant(ONE, ours, asks(products, head="; hit; ttl=")),
            variant(MANY, ours, many),
            variant(PEER, plain, many),
        ]
        rounds = await interleave(variants, stage.size.rounds, stage.report)
    return Result(
        "many_keys",
        QUESTION,
        [
            Goal("server CPU of 50 hits, times that of one", rounds.ratio(MANY, ONE, lambda s: s.cpu_each), 3, True),
            Goal("time of 50 hits (1 / requests/s), times that of one", rounds.ratio(ONE, MANY), 3, True),
        ],
        [compared("64 connections", rounds, ONE, unit="requests/s")],
        rates("Requests/s of one process at 64 connections", rounds),
        {"64 connections": rounds},
    )


def _many(products: Mapping[str, bytes]) -> list[Ask]:
    """Returns requests for many products each, drawn at random, the same ones each time."""
    draw, skus = random.Random(3), list(products)
    chosen = [draw.sample(skus, KEYS) for _ in range(REQUESTS)]
    return [
        Ask(
            "/products?" + "&".join(f"sku={sku}" for sku in some),
            (b'{"items":[' + b",".join(products[sku] for sku in some) + b'],"missing":[]}').decode(),
        )
        for some in chosen
    ]

"""What each step of the design is worth: the same hit, with one of them taken back, and with all of them."""

from contextlib import AsyncExitStack

from tests.benchmarks.catalogue import asks, fill
from tests.benchmarks.hit_over_http import ask_each
from tests.benchmarks.load import drive
from tests.benchmarks.measurement import Result, Sample, Variant, compared, interleave, rates
from tests.benchmarks.stage import Server, Stage, service

QUESTION = "What is each step of the design worth?"
BASE = "fourways"
STEP_BACK = ("-m", "tests.benchmarks.peers.step_back")
STEPS = {
    BASE: "none",
    "with two writes for each answer": "writes",
    "without the direct way past FastAPI's preparations": "direct",
    "without a GET for many": "batching",
    "without settling the garbage collector": "garbage",
    "without any of these": "all",
}


async def measure(stage: Stage) -> Result:
    """Measures with 64 connections, one process each."""
    products = await fill(stage.endpoints)
    async with AsyncExitStack() as stack:

        async def variant(name: str, step: str) -> Variant:
            server = await stack.enter_async_context(service(stage, STEP_BACK, STEP=step))
            await ask_each(server, asks(products))

            async def turn(server: Server = server) -> Sample:
                return await drive(server, asks(products), connections=64, turn=stage.size.turn)

            return Variant(name, turn)

        variants = [await variant(name, step) for name, step in STEPS.items()]
        rounds = await interleave(variants, stage.size.rounds, stage.report)
    return Result(
        "steps",
        QUESTION,
        [],
        [compared("64 connections", rounds, BASE, unit="requests/s")],
        rates("Hits over HTTP with a step taken back, requests/s", rounds),
        {"64 connections": rounds},
    )

"""What a hit costs over HTTP: `GET /products/{sku}`, through the whole service, beside a bare route."""

import asyncio

from tests.benchmarks.catalogue import asks, fill
from tests.benchmarks.load import Ask, drive
from tests.benchmarks.measurement import (
    Chart,
    Goal,
    Result,
    Rounds,
    Sample,
    Table,
    Variant,
    WrongAnswer,
    compared,
    interleave,
    rates,
)
from tests.benchmarks.stage import Server, Stage, peer, service
from tests.keep_alive import KeepAlive

QUESTION = "How many hits does a process answer, and what does one cost?"
BASE, CASHEWS, MODEL, OURS = "FastAPI + GET", "cashews", "cashews, response_model", "fourways"


async def measure(stage: Stage) -> Result:
    """Measures throughput with 64 connections, latency with 16."""
    products = await fill(stage.endpoints)
    async with peer(stage, "plain") as plain, peer(stage, "with_cashews") as cashews, service(stage) as ours:
        hits = asks(products)
        hits_of_models = asks(products, path="/models")
        hits_of_ours = asks(products, head="cache-status: read-through; hit; ttl=")
        for server, these in ((plain, hits), (cashews, hits), (cashews, hits_of_models), (ours, hits)):
            await ask_each(server, these)

        def variant(name: str, server: Server, these: list[Ask], connections: int) -> Variant:
            async def turn() -> Sample:
                return await drive(server, these, connections=connections, turn=stage.size.turn)

            return Variant(name, turn)

        async def rounds(connections: int) -> Rounds:
            variants = [
                variant(BASE, plain, hits, connections),
                variant(CASHEWS, cashews, hits, connections),
                variant(MODEL, cashews, hits_of_models, connections),
                variant(OURS, ours, hits_of_ours, connections),
            ]
            return await interleave(
                variants, stage.size.rounds, lambda text: stage.report(f"{connections} connections, {text}")
            )

        at_64, at_16, at_1 = await rounds(64), await rounds(16), await rounds(1)
        loads = (await ask(cashews, "/loads")).decode()
        if int(loads) != len(products):
            raise WrongAnswer(f"cashews loaded {loads} times what it had: those were no hits.")
    return Result(
        "hit_over_http",
        QUESTION,
        [
            Goal("requests/s at 64 connections, times FastAPI + GET", at_64.ratio(OURS, BASE), 3),
            Goal("server CPU per request, FastAPI + GET by ours", at_64.ratio(BASE, OURS, lambda s: s.cpu_each), 3),
            Goal("requests/s at 64 connections, times cashews", at_64.ratio(OURS, CASHEWS), 4.5),
            Goal("requests/s, times cashews with response_model", at_64.ratio(OURS, MODEL), 4.5),
            Goal("server CPU per request, cashews by ours", at_64.ratio(CASHEWS, OURS, lambda s: s.cpu_each), 4.5),
            Goal("p99 at 16 connections, FastAPI + GET by ours", at_16.ratio(BASE, OURS, lambda s: s.p99), 3),
        ],
        _tables(at_64, at_16, at_1),
        _chart(at_64),
        {"64 connections": at_64, "16 connections": at_16, "1 connection": at_1},
    )


async def ask_each(server: Server, asks: list[Ask]) -> None:
    """Sends each request once, over a few connections: afterwards all are hits."""

    async def some(these: list[Ask]) -> None:
        connection = await KeepAlive.to(server.url)
        for one in these:
            answer = await connection.ask(one.path)
            if answer.status != one.status or answer.body != one.body.encode():
                raise WrongAnswer(f"{one.path} was answered with {answer}, and not {one.body}.")
        await connection.close()

    await asyncio.gather(*(some(asks[start::4]) for start in range(4)))


async def ask(server: Server, path: str) -> bytes:
    """Returns the body of one answer."""
    connection = await KeepAlive.to(server.url)
    answer = await connection.ask(path)
    await connection.close()
    return answer.body


def _tables(at_64: Rounds, at_16: Rounds, at_1: Rounds) -> list[Table]:
    return [
        compared("64 connections", at_64, BASE, unit="requests/s"),
        compared("16 connections", at_16, BASE, unit="requests/s"),
        compared("1 connection", at_1, BASE, unit="requests/s"),
    ]


def _chart(at_64: Rounds) -> Chart:
    return rates("Hits over HTTP, requests/s of one process at 64 connections", at_64)

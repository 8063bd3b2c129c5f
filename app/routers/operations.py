"""Endpoints for operators: liveness, readiness, metrics, the state of write-behind, and the strategies."""

from contextlib import suppress
from datetime import timedelta
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from app.advice import Traffic
from app.caching import CacheUnavailable, Fsync, Outcome, weakest_fsync
from app.errors import DatabaseUnavailable
from app.readiness import readiness
from app.routers.cache_control import UNKEPT, UnkeptJSON
from app.routers.envelope import PREFIX
from app.routers.preconditions import Untagged
from app.routers.problems import NAMED, documented
from app.routers.resources import AllResources
from app.routers.strategies import CACHED, STRATEGIES, LiveStrategy, Reads, Writes, advised
from app.wiring import Resources

router = APIRouter(
    tags=["operations"],
    default_response_class=UnkeptJSON,
    dependencies=[Depends(Untagged(UNKEPT))],
    responses=NAMED | documented(412),
)


class Alive(BaseModel):
    """The answer of a process that is alive."""

    status: Annotated[str, Field(examples=["alive"])] = "alive"


class ReadinessReport(BaseModel):
    """`status` is `ready`; `degraded` when this instance serves what it can and no other would do better; or `unready`
    (503) when another instance would. `parts` has the state of each part."""

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(
        examples=[
            {
                "redis": "ok",
                "postgres": "ok",
                "schema": "current",
                "relay": "ok",
                "flusher": "ok",
                "receipts": "ok",
                "breaker": "ok",
                "epoch": "ok",
                "eviction": "ok",
                "persistence": "ok",
                "keys": "ok",
            }
        ],
    )


@router.get("/", response_class=HTMLResponse, summary="What to try")
async def index(request: Request) -> HTMLResponse:
    """A plain page with links that work on the demo data."""
    text = files("app.routers").joinpath("index.html").read_text()
    page = HTMLResponse(text.replace('href="/', f'href="{request.scope.get(PREFIX, "")}/'))
    page.raw_headers.append(UNKEPT)
    return page


@router.get("/strategies", summary="The strategies, with live figures")
async def strategies(resources: AllResources) -> list[LiveStrategy]:
    """Describes each strategy: when to use it, when to avoid it, what it is never for, its figures since the service
    started, and the strategy that its traffic suggests. Nothing is ever switched automatically."""
    live: dict[str, Reads | Writes] = {f"/{name}": _reads(resources, name) for name in CACHED}
    traffic = {f"/{name}": _traffic(resources, name) for name in CACHED}
    live["/page-views"] = await _writes(resources)
    traffic["/page-views"] = _views(resources)
    return [
        LiveStrategy(
            **strategy.model_dump(),
            live=live[strategy.resource],
            advice=advised(strategy, traffic[strategy.resource]),
        )
        for strategy in STRATEGIES
    ]


def _traffic(resources: Resources, resource: str) -> Traffic:
    events = resources.metrics.totals("cache_events", resource=resource)
    commits = resources.metrics.totals("database_commits")
    return Traffic(reads=sum(int(events.get(outcome, 0)) for outcome in Outcome), writes=int(commits.get(resource, 0)))


def _views(resources: Resources) -> Traffic:
    return Traffic(
        reads=int(resources.metrics.total("views_read")), writes=int(resources.metrics.total("views_accepted"))
    )


def _reads(resources: Resources, resource: str) -> Reads:
    counted = resources.metrics.totals("cache_events", resource=resource)
    outcomes = {outcome: int(counted.get(outcome, 0)) for outcome in Outcome}
    reads = sum(outcomes.values())
    return Reads(
        hits=outcomes[Outcome.HIT],
        misses=outcomes[Outcome.MISS],
        collapsed=outcomes[Outcome.COLLAPSED],
        stale=outcomes[Outcome.STALE],
        locked=outcomes[Outcome.LOCKED],
        bypassed=outcomes[Outcome.BYPASSED],
        refused_fills=int(counted.get("refused", 0)),
        database_queries=int(resources.metrics.totals("database_queries").get(resource, 0)),
        hit_ratio=round(outcomes[Outcome.HIT] / reads, 4) if reads else None,
    )


async def _writes(resources: Resources) -> Writes:
    metrics = resources.metrics
    flushed, rows = int(metrics.total("views_flushed")), int(metrics.total("view_rows_written"))
    try:
        backlog = (await resources.page_views.backlog()).amount
    except CacheUnavailable:
        backlog = None  # All else is known without Redis.
    return Writes(
        accepted=None if backlog is None else flushed + backlog,
        backlog=backlog,
        flushed=flushed,
        rows_written=rows,
        views_per_row=round(flushed / rows, 4) if rows else None,
        failed_flushes=int(metrics.totals("view_flushes").get("failed", 0)),
        database_queries=int(metrics.totals("database_queries").get("page_views", 0)),
    )


@router.get("/health/live", summary="Does the process answer?")
async def live() -> Alive:
    """For a supervisor that restarts a process that does not answer. Queries neither store."""
    return Alive()


@router.get(
    "/health/ready",
    summary="Should it get requests?",
    responses={503: {"model": ReadinessReport, "description": "Another instance could do better; `parts` says why."}},
)
async def ready(resources: AllResources, response: Response) -> ReadinessReport:
    """For a load balancer. A store that is down is down for every instance, so it is no reason to remove this one."""
    found = await readiness(resources)
    if found.status == "unready":
        response.status_code = 503
    return ReadinessReport(status=found.status, parts=found.parts)


class AtRisk(BaseModel):
    """What would be lost if Redis and its machine crashed now, together with the processes that accepted the views.
    (Processes that survive would accept them again.)"""

    fsync: Fsync = Field(
        description="When Redis has what it confirms written to its disk: its `appendfsync`, or `off`.",
        examples=[Fsync.EVERYSEC],
    )
    views: int = Field(
        description="Of the backlog, what may not be on that disk yet: with `everysec` what came within the last "
        "second, nothing with `always`, all of it otherwise.",
        examples=[97],
    )


class WriteBehindStatus(BaseModel):
    """The state of write-behind, in views."""

    backlog: int = Field(description="Accepted, and not yet in Postgres.", examples=[118])
    backlog_bytes: int = Field(description="How many bytes those take in Redis, at least.", examples=[4096])
    oldest_seconds: float | None = Field(
        description="How long the oldest of them waits; null when none does.", examples=[0.171]
    )
    flushed: int = Field(description="Carried to Postgres since the service started.", examples=[20417])
    dead_letters: int | None = Field(
        description="Entries that could not be flushed; null while Postgres does not answer.", examples=[0]
    )
    parked: int | None = Field(
        description="Carried, and in every total, but not in the row of their page yet: it is locked, or too slow to "
        "change; null while Postgres does not answer.",
        examples=[0],
    )
    consumers: int = Field(description="Flushers that Redis knows.", examples=[1])
    at_risk: AtRisk
    recovered: int = Field(description="Lost by Redis and accepted again, since the service started.", examples=[0])
    lost: int = Field(description="Lost by Redis, and not to be had again, since the service started.", examples=[0])


@router.get("/write-behind", summary="What waits for the database", responses=documented(503))
async def write_behind(resources: AllResources) -> WriteBehindStatus:
    """Reports the page views that were accepted and are not in Postgres yet."""
    policy = await weakest_fsync(resources.cache.caches)
    backlog = await resources.page_views.backlog(policy.window)
    dead_letters = parked = None
    # The backlog is reported without Postgres, too: then it matters most.
    with suppress(DatabaseUnavailable):
        dead_letters = await resources.page_view_store.count_dead_letters()
        parked = await resources.page_view_store.count_parked()
    metrics = resources.metrics
    return WriteBehindStatus(
        backlog=backlog.amount,
        backlog_bytes=backlog.bytes,
        oldest_seconds=None if backlog.oldest is None else backlog.oldest.total_seconds(),
        flushed=int(metrics.total("views_flushed")),
        dead_letters=dead_letters,
        parked=parked,
        consumers=backlog.flushers,
        at_risk=AtRisk(fsync=policy, views=backlog.young),
        recovered=int(metrics.total("views_recovered")),
        lost=int(metrics.total("views_lost")),
    )


@router.get(
    "/metrics",
    summary="Counters and histograms",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format, of all workers."}},
)
async def metrics(resources: AllResources) -> Response:
    """Hits, misses, collapsed and stale reads, refused fills, load seconds and database queries by resource; the page
    views that wait for the database, and what became of all others."""
    values: dict[str, tuple[str, float]] = {}
    # If one store is down, the other's values and the counters are still reported.
    with suppress(CacheUnavailable):
        backlog = await resources.page_views.backlog((await weakest_fsync(resources.cache.caches)).window)
        oldest = timedelta(0) if backlog.oldest is None else backlog.oldest
        values = {
            "views_backlog": ("Page views that were accepted and are not in Postgres yet.", backlog.amount),
            "views_backlog_bytes": ("How many bytes those take in Redis, at least.", backlog.bytes),
            "views_backlog_oldest_seconds": ("How long the oldest of them waits.", oldest.total_seconds()),
            "views_backlog_fill": ("How full the fullest shard is; at 1 it takes nothing more.", backlog.fill),
            "views_keys_bytes": ("How many bytes the records of idempotency keys take in Redis.", backlog.record_bytes),
            "views_keys_fill": ("How full the fullest shard is of those; at 1 it takes no more.", backlog.record_fill),
            "views_at_risk": ("Those of them that a crash of Redis' machine could lose now.", backlog.young),
        }
    with suppress(DatabaseUnavailable):
        letters = await resources.page_view_store.count_dead_letters()
        values["dead_letters"] = ("Dead letters, neither replayed nor discarded yet.", letters)
        parked = await resources.page_view_store.count_parked()
        values["views_parked"] = ("Page views that are counted, and wait for the row of their page.", parked)
    text = resources.metrics.text() + resources.metrics.gauges_text(values)
    answer = Response(text, media_type=CONTENT_TYPE_LATEST)
    answer.raw_headers.append(UNKEPT)
    return answer

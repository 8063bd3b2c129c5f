"""What an operator asks: is it alive, is it ready, what does it do, and what are the strategies."""

from contextlib import suppress
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from app.caching import CacheUnavailable, Outcome
from app.errors import DatabaseUnavailable
from app.readiness import readiness
from app.routers.problems import documented
from app.routers.strategies import STRATEGIES, LiveStrategy, Reads, Writes
from app.wiring import AllResources, Resources

router = APIRouter(tags=["operations"], responses=documented())


class Alive(BaseModel):
    """The process answers."""

    status: Annotated[str, Field(examples=["alive"])] = "alive"


class ReadinessReport(BaseModel):
    """`ready`; `degraded` when it serves what it can, and another instance could do no better; `unready` (503) when
    another instance could. `parts` says what each part is."""

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(
        examples=[
            {
                "redis": "ok",
                "postgres": "ok",
                "schema": "current",
                "relay": "ok",
                "flusher": "ok",
                "breaker": "ok",
                "eviction": "ok",
                "persistence": "ok",
            }
        ],
    )


@router.get("/", response_class=HTMLResponse, summary="What to try")
async def index() -> str:
    """One plain page with links that work on the demo data."""
    return files("app.routers").joinpath("index.html").read_text()


@router.get("/strategies", summary="The strategies, with live figures")
async def strategies(resources: AllResources) -> list[LiveStrategy]:
    """What each strategy is, when to use it, when to avoid it, what it is never for, and what it did here so far."""
    live: dict[str, Reads | Writes] = {name: _reads(resources, name) for name in ("users", "products", "inventory")}
    live["page-views"] = await _writes(resources)
    return [
        LiveStrategy(**strategy.model_dump(), live=live[strategy.resource.removeprefix("/")]) for strategy in STRATEGIES
    ]


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
        backlog = (await resources.page_views.backlog()).views
    except CacheUnavailable:
        backlog = None  # The rest can be told without Redis.
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
    """For a supervisor that restarts what does not answer. It asks neither store."""
    return Alive()


@router.get(
    "/health/ready",
    summary="Should it get requests?",
    responses={503: {"model": ReadinessReport, "description": "Another instance could do better; `parts` says why."}},
)
async def ready(resources: AllResources, response: Response) -> ReadinessReport:
    """For a balancer. A store that is down is down for every instance, so it is no reason to take this one away."""
    found = await readiness(resources)
    if found.status == "unready":
        response.status_code = 503
    return ReadinessReport(status=found.status, parts=found.parts)


class WriteBehindStatus(BaseModel):
    """How write-behind does, in views."""

    backlog: int = Field(description="Accepted, and not yet in Postgres.", examples=[118])
    oldest_seconds: float | None = Field(
        description="How long the oldest of them waits; null when none does.", examples=[0.171]
    )
    flushed: int = Field(description="Carried to Postgres since the service started.", examples=[20417])
    dead_letters: int | None = Field(
        description="Entries that could not be carried; null while Postgres does not answer.", examples=[0]
    )
    consumers: int = Field(description="Flushers that Redis knows.", examples=[1])


@router.get("/write-behind", summary="What waits for the database", responses=documented(503))
async def write_behind(resources: AllResources) -> WriteBehindStatus:
    """The page views that were accepted and are not in Postgres yet."""
    backlog = await resources.page_views.backlog()
    try:
        dead_letters = await resources.page_view_store.dead_letters()
    except DatabaseUnavailable:
        dead_letters = None  # What waits is told all the more then.
    return WriteBehindStatus(
        backlog=backlog.views,
        oldest_seconds=None if backlog.oldest is None else backlog.oldest.total_seconds(),
        flushed=int(resources.metrics.total("views_flushed")),
        dead_letters=dead_letters,
        consumers=backlog.flushers,
    )


@router.get(
    "/metrics",
    summary="Counters and histograms",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format, of all workers."}},
)
async def metrics(resources: AllResources) -> Response:
    """Hits, misses, collapsed, stale, refused fills, load seconds and database queries by resource."""
    text = resources.metrics.text()
    # Without Redis the counters are told all the same.
    with suppress(CacheUnavailable):
        backlog = await resources.page_views.backlog()
        text += resources.metrics.backlog_text(backlog.views, backlog.oldest)
    return Response(text, media_type=CONTENT_TYPE_LATEST)

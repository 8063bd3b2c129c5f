"""The application: `uvicorn app.main:app`.

Without REDIS_URL and DATABASE_URL it starts a real Redis and a real Postgres of its own, in `.fourways/`.
"""

import asyncio
import logging
import multiprocessing
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress

from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app.caching import CacheUnavailable
from app.embedded import embedded_servers
from app.log_lines import speak_as_one
from app.metrics import Metrics
from app.readiness import OK, readiness
from app.routers import dead_letters, inventory, operations, page_views, problems, products, users
from app.routers.documents import add_documents
from app.routers.edge import Edge
from app.routers.hosts import Hosts
from app.schema import Schema, migrate
from app.settings import Settings, SettingsError, read_settings
from app.speed.direct_way import DirectWay
from app.speed.settled_garbage import settled_garbage
from app.wiring import Resources, open_resources

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application with these settings. It opens nothing before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stores = await _own_stores(settings, stack) if settings.redis_url is None else settings
            app.state.resources = await stack.enter_async_context(open_resources(stores, Metrics()))
            await _report(app.state.resources)
            stack.enter_context(_ended_with_supervisor())
            stack.enter_context(settled_garbage())
            yield

    app = FastAPI(
        title="Fourways",
        version="0.1.0",
        summary="The four caching strategies in front of a database.",
        lifespan=lifespan,
        openapi_url=None,  # It is added with the other documents.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Each request would ask the environment three times whether somebody has configured it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)
    routers = [module.router for module in (users, products, inventory, page_views, operations, dead_letters)]
    for router in routers:
        # As they are: `include_router` keeps a router in the router, and matches each request twice.
        app.router.routes.extend(router.routes)
    add_documents(app)
    # The last one that is added is the first one to see a request.
    app.add_middleware(DirectWay, routes=app.router.routes)
    app.add_middleware(Edge, settings=settings)
    # Where it listens may be said by a name, and then it is called by it.
    app.add_middleware(Hosts, allowed=(*settings.allowed_hosts, settings.host.lower()))
    return app


async def _own_stores(settings: Settings, stack: AsyncExitStack) -> Settings:
    """Starts the embedded servers until the stack ends, and brings their schema up to date."""
    servers = ExitStack()
    stack.push_async_callback(asyncio.to_thread, servers.close)
    endpoints = await asyncio.to_thread(servers.enter_context, embedded_servers(settings.directory, report=logger.info))
    await asyncio.to_thread(migrate, endpoints.database_url)
    return settings.model_copy(update={"redis_url": endpoints.redis_url, "database_url": endpoints.database_url})


async def _report(resources: Resources) -> None:
    """Says at the start what an operator should know, and would ask readiness for only when it is too late."""
    with suppress(CacheUnavailable):  # Readiness says why.
        # Many that begin at once stand still, and trust lapses for a moment: as a reader does, wait for news.
        await resources.breaker.believed()
    for part, says in (await readiness(resources)).parts.items():
        if says not in (OK, Schema.CURRENT):
            logger.warning("Not as it should be: %s: %s", part, says)


@contextmanager
def _ended_with_supervisor() -> Iterator[None]:
    """Ends this process as SIGTERM does when it is a worker and its supervisor was killed.

    It would go on serving else, with nobody to stop it, and the next start would find the port taken.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(supervisor.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(supervisor.sentinel, end)
    yield
    loop.remove_reader(supervisor.sentinel)


def _configured() -> FastAPI:
    speak_as_one()
    try:
        return create_app(read_settings())
    except SettingsError as error:
        # Uvicorn's own code for a failed start: a supervisor that sees it does not start the worker again and again.
        print(error, file=sys.stderr)
        raise SystemExit(STARTUP_FAILURE) from None


app = _configured()

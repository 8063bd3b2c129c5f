"""The application: `uvicorn app.main:app`.

Without REDIS_URL and DATABASE_URL it starts its own real Redis and Postgres in `.fourways/`.
"""

import asyncio
import logging
import multiprocessing
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE

from app import VERSION
from app.caching import CacheUnavailable
from app.embedded import embedded_servers
from app.faults import FAULTS
from app.log_lines import speak_as_one
from app.metrics import Metrics
from app.readiness import readiness
from app.routers import dead_letters, inventory, operations, page_views, problems, products, users
from app.routers.documents import add_documents
from app.routers.edge import Edge
from app.routers.envelope import Envelope
from app.routers.hosts import Hosts
from app.schema import Schema, migrate
from app.settings import Settings, SettingsError, read_settings
from app.speed.direct_way import DirectWay
from app.speed.settled_garbage import settled_garbage
from app.store_health import OK
from app.unknown_variables import warn_of_unknown_variables
from app.wiring import Resources, open_resources

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Creates the application. It opens nothing before its lifespan begins."""

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
        version=VERSION,
        summary="The four caching strategies in front of a database.",
        lifespan=lifespan,
        openapi_url=None,  # `add_documents` adds it.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Otherwise each request checks the environment three times for a telemetry configuration.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.lifespan = partial(_lifespan, app.router.lifespan)  # type: ignore[method-assign]
    problems.install(app)
    routers = [module.router for module in (users, products, inventory, page_views, operations, dead_letters)]
    for router in routers:
        # Not `include_router`: it nests the router, and each request is matched twice.
        app.router.routes.extend(router.routes)
    add_documents(app)
    # The middleware added last sees a request first.
    app.add_middleware(DirectWay, routes=app.router.routes)
    app.add_middleware(Edge, settings=settings)
    # If `settings.host` is a name, clients may use it as the Host, so it is allowed too.
    app.add_middleware(Hosts, allowed=(*settings.allowed_hosts, settings.host.lower()))
    app.add_middleware(Envelope, settings=settings)
    return app


async def _lifespan(lifespan: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the lifespan. If it cannot begin, the server logs what to do about it, and not a traceback."""

    async def send_sentence(message: Message) -> None:
        error = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(error, FAULTS):
            message = {**message, "message": str(error)}
        await send(message)

    await lifespan(scope, receive, send_sentence)


async def _own_stores(settings: Settings, stack: AsyncExitStack) -> Settings:
    """Starts the embedded servers and migrates their database. The stack stops them when it ends."""
    servers = ExitStack()
    stack.push_async_callback(asyncio.to_thread, servers.close)
    endpoints = await asyncio.to_thread(servers.enter_context, embedded_servers(settings.directory, report=logger.info))
    await asyncio.to_thread(migrate, endpoints.database_url)
    return settings.model_copy(update={"redis_url": endpoints.redis_url, "database_url": endpoints.database_url})


async def _report(resources: Resources) -> None:
    """Logs at startup what readiness reports, so that the operator learns of a fault before it does harm."""
    with suppress(CacheUnavailable):  # Readiness says why.
        # When many instances start at once they stall, and trust lapses for a moment. Wait for it, as a reader does.
        await asyncio.gather(*(cache.trust.believed() for cache in resources.cache.caches))
    for part, says in (await readiness(resources)).parts.items():
        if says not in (OK, Schema.CURRENT):
            logger.warning("Not as it should be: %s: %s", part, says)


@contextmanager
def _ended_with_supervisor() -> Iterator[None]:
    """Ends this worker process with SIGTERM when its supervisor is killed.

    Otherwise the worker keeps serving, nothing stops it, and the next start finds the port taken.
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
    try:
        settings = read_settings()
        speak_as_one(settings)
        warn_of_unknown_variables()
        return create_app(settings)
    except SettingsError as error:
        # Uvicorn's exit code for a failed start. A supervisor that sees it does not keep restarting the worker.
        print(error, file=sys.stderr)
        raise SystemExit(STARTUP_FAILURE) from None


app = _configured()

"""The one file that decides how each resource is cached, and for how long.

    users       cache-aside     the service queries cache and database, and invalidates after a write
    products    read-through    the cache loads values itself; the service invalidates after a write
    inventory   write-through   the cache loads and saves, in both stores or in neither
    page views  write-behind    the cache accepts views, and a flusher writes them to the database later

`open_resources` lists each resource twice: with the lifetimes of its values, and with its strategy and the store
methods that the strategy receives.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from app.caching import (
    Cache,
    CacheAside,
    Cap,
    Event,
    Flow,
    Flusher,
    Lifetimes,
    Observe,
    ReadThrough,
    Record,
    Region,
    WriteBehind,
    WriteThrough,
)
from app.caching.cluster import Cluster
from app.caching.lease import K
from app.caching.reading import V
from app.caching.write_behind.shard import number, shards
from app.coherence.delivery import Forget
from app.coherence.epochs import Epochs
from app.coherence.holders.cluster_nodes import ClusterNodes
from app.coherence.outbox import Outbox
from app.coherence.places import OneRedis, Places
from app.coherence.relay import Relay
from app.coherence.settling import Settling
from app.coherence.succession import Succession
from app.database import Database
from app.inventory.load import load_from as stock_from
from app.inventory.models import Change, Stock
from app.inventory.store import StockStore
from app.metrics import Metrics
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.page_views.target import target
from app.privileges import Privileges
from app.products.load import load_from as products_from
from app.products.models import Product
from app.products.service import Products
from app.products.store import ProductStore
from app.settings import Settings
from app.stores import open_stores
from app.users.models import User
from app.users.service import Users
from app.users.store import UserStore

NEVER = timedelta(0)


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that is open while the application runs."""

    settings: Settings
    metrics: Metrics
    cache: Cache | Cluster
    database: Database
    relay: Relay
    users: Users
    products: Products
    inventory: WriteThrough[str, Change, Stock]
    page_views: WriteBehind
    page_view_store: PageViewStore
    flusher: Flusher
    parking: Parking
    privileges: Privileges


@asynccontextmanager
async def open_resources(settings: Settings, metrics: Metrics) -> AsyncIterator[Resources]:
    """Opens all resources and closes them in reverse order. `settings` must name both stores."""
    async with open_stores(settings, metrics) as stores, AsyncExitStack() as running:
        cache, database, background, poller = stores.cache, stores.database, stores.background, stores.poller
        settling, stale = Settling(Outbox(database)), settings.stale_for
        caches: dict[str, Forget] = {}
        places: dict[str, Callable[[str], Cache | None]] = {}
        regions: list[Region[Any, Any]] = []

        def region(
            table: str,
            key: Callable[[str], K],
            type_: type[V],
            fresh: timedelta,
            stale: timedelta,
            observe: Observe = metrics.observe,
        ) -> Region[K, V]:
            """Creates the region for a table. The relay invalidates the changes that the table's triggers report."""

            async def settled(key: K) -> None:
                await settling.wait(table, str(key))

            async def invalidate(text: str, version: int) -> None:
                await values.try_invalidate(key(text), version)

            lifetimes = Lifetimes(fresh, stale, settings.absent_ttl)
            values: Region[K, V] = Region(cache, table, type_, lifetimes=lifetimes, settled=settled, observe=observe)
            regions.append(values)
            caches[table], places[table] = invalidate, lambda text: values.place(key(text))
            return values

        def observe_stock(_table: str, event: Event, took: timedelta, times: int) -> None:
            metrics.observe("inventory", event, took, times)  # Labelled by resource, as its queries are.

        # Clients act on stock quantities, so a stale one is never served, even when a load fails.
        user_values = region("users", int, User, settings.users_ttl, stale)
        product_values = region("products", str, Product, settings.products_ttl, stale)
        stock_values = region("stock", str, Stock, settings.inventory_ttl, NEVER, observe_stock)

        product_store, page_view_store = ProductStore(database), PageViewStore(database)
        stock_store = StockStore(database, metrics.observe_lock_wait)
        counters = target(page_view_store, flushed=PageViewStore(background))

        users = Users(CacheAside(user_values), UserStore(database))
        products = Products(ReadThrough(product_values, products_from(product_store)), product_store)
        inventory = WriteThrough(stock_values, load=stock_from(stock_store), save=stock_store.save)
        page_views = WriteBehind(cache, "views", counters, cap=_cap(settings), observe=metrics.observe_flow)

        flusher = Flusher(
            cache,
            "views",
            counters,
            redis=stores.waiting,
            amount=settings.flush_views,
            interval=settings.flush_interval,
            observe=metrics.observe_flow,
        )
        parking = Parking(background, poller, lambda dead: metrics.observe_flow(Flow.DEAD, dead))

        async def forget_page(page: str, version: int) -> None:
            await page_views.forget(page)  # A replayed dead letter bypasses the stream.

        streams = [shard.stream for shard in shards(f"{settings.prefix}views")]
        places["page_views"] = lambda page: cache.place(streams[number(page)])

        relay = Relay(
            Outbox(background),
            caches | {"page_views": forget_page},
            succession=Succession(Epochs(background, poller), _nodes(cache, settings.prefix), database),
            place=lambda table, key: places[table](key),
            counted=metrics.count_relayed,
            refused=metrics.count_refused_change,
        )
        for values in regions:
            await running.enter_async_context(values)
        await running.enter_async_context(page_views)
        await running.enter_async_context(relay.running())
        await running.enter_async_context(flusher)
        await running.enter_async_context(parking.running())
        yield Resources(
            settings=settings,
            metrics=metrics,
            cache=cache,
            database=database,
            relay=relay,
            users=users,
            products=products,
            inventory=inventory,
            page_views=page_views,
            page_view_store=page_view_store,
            flusher=flusher,
            parking=parking,
            privileges=Privileges(database, settings.prefix),
        )


def _nodes(cache: Cache | Cluster, prefix: str) -> Places:
    if isinstance(cache, Cluster):
        return ClusterNodes(cache, prefix)
    return OneRedis(cache, Record(cache.redis, f"{prefix}epoch", cache.clock))


def _cap(settings: Settings) -> Cap:
    return Cap(entries=settings.backlog_entries, bytes=settings.backlog_bytes, records=settings.keys_bytes)

"""The one place that says which resource is cached how, and for how long; it opens and closes everything.

users       cache-aside     the service asks both, and invalidates after a write
products    read-through    the cache loads itself; the service invalidates after a write
inventory   write-through   the cache loads and saves by itself, in both stores or in none
page views  write-behind    the cache accepts them, and a flusher writes them to the database later
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from app.caching import (
    Breaker,
    CacheAside,
    Cap,
    Flow,
    Flusher,
    Lifetimes,
    Locked,
    ReadThrough,
    Record,
    Region,
    Unreadable,
    WriteBehind,
    WriteThrough,
    open_cache,
    open_redis,
)
from app.coherence.epochs import Epochs
from app.coherence.outbox import Outbox
from app.coherence.relay import Relay
from app.coherence.settling import Settling
from app.coherence.succession import Succession
from app.database import Database, open_database
from app.errors import UnreadableRow
from app.inventory.models import Change, Stock
from app.inventory.store import StockStore
from app.metrics import Metrics
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.page_views.target import target
from app.products.models import Product
from app.products.service import Products
from app.products.store import ProductStore
from app.settings import Settings
from app.users.models import User
from app.users.service import Users
from app.users.store import UserStore


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that is open while the application runs."""

    settings: Settings
    metrics: Metrics
    redis: Redis
    database: Database
    breaker: Breaker
    relay: Relay
    users: Users
    products: Products
    inventory: WriteThrough[str, Change, Stock]
    page_views: WriteBehind
    page_view_store: PageViewStore
    flusher: Flusher
    parking: Parking


@asynccontextmanager
async def open_resources(settings: Settings, metrics: Metrics) -> AsyncIterator[Resources]:
    """Opens the resources of `settings`, which names both stores, and closes them in the reverse order.

    Neither store need be up: both are connected to when they are used.
    """
    if settings.redis_url is None or settings.database_url is None:
        raise ValueError("The settings name no stores.")
    async with (
        open_cache(
            settings.redis_url,
            prefix=settings.prefix,
            timeout=settings.redis_timeout,
            connections=settings.redis_connections,
            # Without Redis, reads may take half of the connections to the database: writers need some, too.
            bypassing=settings.database_connections // 2,
            observe=metrics.observe,
            changed=metrics.observe_breaker,
            relayed=True,
        ) as cache,
        # The flusher waits for entries, on a connection of its own: as long as it waits, and some more.
        open_redis(
            settings.redis_url,
            timeout=settings.redis_timeout + timedelta(seconds=2),
            connections=2,
            breaker=cache.breaker,
            marker=f"{settings.prefix}run",
        ) as waiting_redis,
        open_database(
            settings.database_url,
            connections=settings.database_connections,
            timeout=settings.database_timeout,
            counted=metrics.count_query,
            committed=metrics.count_commit,
        ) as database,
        # The relay, the flusher and the parking must not wait behind requests, or under load caches would rot and views
        # pile up.
        open_database(
            settings.database_url,
            connections=3,
            timeout=settings.database_timeout,
            within=settings.database_timeout,
            counted=metrics.count_query,
        ) as background,
    ):
        redis, clock, breaker = cache.redis, cache.clock, cache.breaker

        def lifetimes(fresh: timedelta) -> Lifetimes:
            return Lifetimes(fresh=fresh, stale=settings.stale_for, absent=settings.absent_ttl)

        settling = Settling(Outbox(database))

        users_region: Region[int, User] = Region(
            cache,
            "users",
            User,
            lifetimes=lifetimes(settings.users_ttl),
            settled=lambda user_id: settling.wait("users", str(user_id)),
        )
        products_region: Region[str, Product] = Region(
            cache,
            "products",
            Product,
            lifetimes=lifetimes(settings.products_ttl),
            settled=lambda sku: settling.wait("products", sku),
        )
        stock_region: Region[str, Stock] = Region(
            cache,
            "stock",
            Stock,
            # Nobody may act on an old number, so none is kept to be served when a load fails.
            lifetimes=Lifetimes(fresh=settings.inventory_ttl, stale=timedelta(0), absent=settings.absent_ttl),
            # The table is called stock, and the resource, whose queries are counted, too, inventory.
            observe=lambda _region, event, took, times: metrics.observe("inventory", event, took, times),
            settled=lambda sku: settling.wait("stock", sku),
        )
        user_store, product_store, stock_store = (
            UserStore(database),
            ProductStore(database),
            StockStore(database, metrics.observe_lock_wait),
        )

        async def load_products(skus: Sequence[str]) -> dict[str, Product | Unreadable]:
            rows = await product_store.get_many(skus)
            return {sku: Unreadable(str(row)) if isinstance(row, UnreadableRow) else row for sku, row in rows.items()}

        async def load_stock(sku: str) -> Stock | Locked[Stock] | None:
            found = await stock_store.load(sku)
            return found.stock if found.unlocked else Locked(found.stock)

        # Users: cache-aside. The cache is told nothing of the database.
        users = Users(CacheAside(users_region), user_store)
        # Products: read-through. The cache is told how to read.
        products = Products(ReadThrough(products_region, load=load_products), product_store)

        # Inventory: write-through. The cache is told how to read, and how to write.
        inventory = WriteThrough(stock_region, load=load_stock, save=stock_store.save)

        # Page views: write-behind. The cache is told how to read, and the flusher how to write, later.
        page_view_store = PageViewStore(database)
        views_target = target(page_view_store, flushed=PageViewStore(background))
        page_views = WriteBehind(
            cache,
            "views",
            views_target,
            cap=Cap(entries=settings.backlog_entries, bytes=settings.backlog_bytes, records=settings.keys_bytes),
            observe=metrics.observe_flow,
        )
        flusher = Flusher(
            cache,
            "views",
            views_target,
            redis=waiting_redis,
            amount=settings.flush_views,
            interval=settings.flush_interval,
            observe=metrics.observe_flow,
        )

        parking = Parking(background, lambda dead: metrics.observe_flow(Flow.DEAD, dead))

        async def forget_user(key: str, version: int) -> None:
            await users_region.forget(int(key), version)

        # A dead letter was counted, past the stream.
        async def forget_page(page: str, version: int) -> None:
            await page_views.forget(page)

        succession = Succession(
            Epochs(background), Record(redis, f"{settings.prefix}epoch", clock), redis, breaker, database
        )
        relay = Relay(
            Outbox(background),
            {
                "users": forget_user,
                "products": products_region.forget,
                "stock": stock_region.forget,
                "page_views": forget_page,
            },
            succession=succession,
            breaker=breaker,
            counted=metrics.count_relayed,
            refused=metrics.count_refused_change,
        )
        async with (
            users_region,
            products_region,
            stock_region,
            page_views,
            relay.running(),
            flusher,
            parking.running(),
        ):
            yield Resources(
                settings,
                metrics,
                redis,
                database,
                breaker,
                relay,
                users,
                products,
                inventory,
                page_views,
                page_view_store,
                flusher,
                parking,
            )

"""The Prometheus rules: each alert is provoked, and its rule evaluated on the /metrics of that moment."""

import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from app.caching.repeating import LATEST
from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.gathering import ABANDONED
from app.caching.write_behind.shard import COUNT, GROUP, Shard, number, shards
from app.coherence.relay import POLL
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.redis_wire import RedisWire
from tests.in_process import application
from tests.service import REPOSITORY, free_port

FILE = REPOSITORY / "docs" / "alerts.yml"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]
}
PROVOKED = [
    "BacklogOld", "BacklogNearCap", "FlushesFailing", "DeadLetters", "ViewsLost", "ViewsRecovered", "EntriesRemoved",
    "BreakerOpen", "RelayFailing", "InvalidationsFailing", "ChangesRefused", "KeysNearCap", "ViewsParked",
]  # fmt: skip
"""The alerts that the tests below make fire."""
HOME = Shard("views", number("home"))

Vector = dict[frozenset[tuple[str, str]], float]
"""Values by their labels."""

TOKEN = re.compile(r"[a-z_]+(?:\{[^}]*\})?|\[\w+\]|[()]|[<>]|[\d.]+[a-z]?|\S")
DURATION = re.compile(r"\d+[smh]")
MATCHER = re.compile(r'(\w+)="([^"]*)"')
SELECTOR = re.compile(rf"\w+(\{{{MATCHER.pattern}(,{MATCHER.pattern})*\}})?")


class Query:
    """The part of PromQL that the rules use, evaluated at the second of two scrapes. Ranges and offsets reach the
    first one."""

    def __init__(self, expr: str, before: str, after: str) -> None:
        self._tokens = deque(TOKEN.findall(expr))
        self._before, self._after = before, after

    def result(self) -> Vector:
        """Returns the result of the expression: the rule fires for each value."""
        result = self._either()
        assert not self._tokens, f"This is not understood: {' '.join(self._tokens)}"
        return result

    def _either(self) -> Vector:
        result = self._both()
        while self._next_is("or"):
            result = self._both() | result
        return result

    def _both(self) -> Vector:
        result = self._compared()
        while self._tokens and self._tokens[0] in ("and", "unless"):
            there = self._tokens.popleft() == "and"
            other = self._compared()
            result = {labels: value for labels, value in result.items() if (labels in other) == there}
        return result

    def _compared(self) -> Vector:
        values = self._values()
        if not self._next_is(">"):
            return values
        limit = float(self._tokens.popleft())
        return {labels: value for labels, value in values.items() if value > limit}

    def _values(self) -> Vector:
        if self._next_is("("):
            result = self._either()
            self._expect(r"\)")
            return result
        if self._next_is("increase"):
            self._expect(r"\(")
            before, after = self._selected()
            self._expect(rf"\[{DURATION.pattern}\]")
            self._expect(r"\)")
            # The increase of a counter that did not exist before is unknown. A counter that has become smaller was
            # reset.
            return {
                labels: value - before[labels] * (before[labels] <= value)
                for labels, value in after.items()
                if labels in before
            }
        before, after = self._selected()
        if self._next_is("offset"):
            self._expect(DURATION.pattern)
            return before
        return after

    def _selected(self) -> tuple[Vector, Vector]:
        selector = self._expect(r"fourways_.*")
        return selected(selector, self._before), selected(selector, self._after)

    def _next_is(self, token: str) -> bool:
        found = bool(self._tokens) and self._tokens[0] == token
        if found:
            self._tokens.popleft()
        return found

    def _expect(self, pattern: str) -> str:
        token = self._tokens.popleft() if self._tokens else "the end"
        assert re.fullmatch(pattern, token), f"{token} is not {pattern}."
        return str(token)


def selected(selector: str, scrape: str) -> Vector:
    """Returns the samples of a scrape that `name{label="value"}` selects."""
    assert SELECTOR.fullmatch(selector), selector
    name, wanted = selector.partition("{")[0], set(MATCHER.findall(selector))
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
        if sample.name == name and wanted <= set(sample.labels.items())
    }


def firing(before: str, after: str) -> set[str]:
    """Returns the alerts that fire at the second of two scrapes, without their prefix."""
    return {
        alert.removeprefix("Fourways") for alert, rule in RULES.items() if Query(rule["expr"], before, after).result()
    }


@pytest.fixture
def held_back(settings: Settings) -> Settings:
    """Settings of an application whose flusher flushes nothing before the end."""
    return settings.model_copy(update={"flush_interval": timedelta(hours=1), "flush_views": 1_000_000_000})


async def scrape(client: httpx.AsyncClient) -> str:
    """Returns the current metrics, as Prometheus scrapes them."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    return answer.text


async def fires(client: httpx.AsyncClient, before: str, *alerts: str) -> set[str]:
    """Waits until these alerts fire, and returns all that fire then."""
    found: set[str] = set()

    async def they_do() -> bool:
        nonlocal found
        found = firing(before, await scrape(client))
        return set(alerts) <= found

    await eventually(they_do)
    return found


async def at_rest(client: httpx.AsyncClient) -> str:
    """Waits until the start is over and no alert fires, and returns that scrape."""
    text = ""

    async def is_at_rest() -> bool:
        nonlocal text
        text = await scrape(client)
        return firing(text, text) == set()

    await eventually(is_at_rest)
    return text


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_rule_has_all_parts_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert list(rule) == ["alert", "expr", "for", "labels", "annotations"]
    assert re.fullmatch("Fourways[A-Z][A-Za-z]+", rule["alert"])
    assert DURATION.fullmatch(rule["for"])
    assert rule["labels"] in ({"severity": "warning"}, {"severity": "critical"})
    assert list(rule["annotations"]) == ["summary", "description"]
    for text in rule["annotations"].values():
        assert re.fullmatch(r"(\{\{ |[A-Z`])[^\n]*\.", text), text
    # The summary is one sentence. The description has several, and says more than that something is wrong.
    assert rule["annotations"]["summary"].count(". ") == 0
    assert rule["annotations"]["description"].count(". ") >= 1
    labels = {"instance"} | {label for label, _value in MATCHER.findall(rule["expr"])}
    labels |= {"resource"} if "fourways_cache_events_total" in rule["expr"] else set()
    for text in rule["annotations"].values():
        for inserted in re.findall(r"\{\{(.*?)\}\}", text):
            named = re.fullmatch(r" \$(value(?: \| humanize(?:Duration|Percentage)?)?|labels\.(\w+)) ", inserted)
            assert named is not None, inserted
            assert named[2] is None or named[2] in labels
        assert text.count("{{") == text.count("}}") == len(re.findall(r"\{\{.*?\}\}", text))


def test_each_rule_is_provoked_below() -> None:
    names = re.findall(r"^ +- alert: Fourways(\w+)$", FILE.read_text(), re.MULTILINE)
    assert sorted(names) == sorted(alert.removeprefix("Fourways") for alert in RULES) == sorted(PROVOKED)


def numbers(alert: str) -> Iterator[float]:
    """Returns the thresholds of a rule."""
    return map(float, re.findall(r"> ([\d.]+)", RULES[f"Fourways{alert}"]["expr"]))


def test_the_thresholds_allow_normal_operation_and_nothing_beyond_it() -> None:
    # The latest time after its last delivery at which the entry of a dead flusher is reclaimed.
    handed_over = 1.5 * ABANDONED.total_seconds()
    assert [handed_over < old < 2 * handed_over for old in numbers("BacklogOld")] == [True]
    assert [0.5 < fill < 1 for fill in numbers("BacklogNearCap")] == [True]
    # A task that always fails exceeds the threshold within a minute, even if each try has to wait for a store.
    silent = Settings.model_fields["database_timeout"].default.total_seconds() * 1.5
    (flushes,) = numbers("FlushesFailing")
    assert flushes < 60 / (LATEST.total_seconds() + silent)
    (polls,) = numbers("RelayFailing")
    assert polls < 60 / (POLL.total_seconds() + silent)


async def test_no_alert_fires_in_normal_operation(settings: Settings) -> None:
    async with application(settings) as client:
        before = await at_rest(client)
        user = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        assert (await client.patch(user.headers["location"], json={"name": "Ada King"})).status_code == 200
        assert (await client.put("/inventory/KETTLE-1", json={"quantity": 30})).status_code == 201
        views = [{"page": f"page {page}", "count": 1000} for page in range(100)]
        assert (await client.post("/page-views", json={"views": views})).status_code == 202
        assert firing(before, await scrape(client)) == set()

        async def is_carried() -> bool:
            return bool((await client.get("/write-behind")).json()["backlog"] == 0)

        await eventually(is_carried)
        assert firing(before, await scrape(client)) == set()


async def test_alerts_fire_while_views_wait_for_a_postgres_that_is_away(
    held_back: Settings, settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The longest pause between two tries. It is short here, so that many failures do not take long.
    monkeypatch.setattr("app.caching.repeating.LATEST", timedelta(milliseconds=200))
    # The entry was accepted half a minute ago.
    at = round((time.time() - 30) * 1000)
    await redis.xadd(HOME.stream, {"batch": ulid(at), "deltas": '{"home": 500}', "views": 500}, id=f"{at}-0")
    await redis.incrby(HOME.backlog, 500)
    # Two entries fill a shard.
    async with application(held_back.model_copy(update={"backlog_entries": 2 * COUNT})) as client:
        few = await scrape(client)
        assert firing(few, few) == {"BacklogOld"}
        assert (await client.post("/page-views/home")).status_code == 202
        many = await scrape(client)
        assert firing(many, many) == {"BacklogOld", "BacklogNearCap"}
    assert await redis.xlen(HOME.stream) == 0
    await redis.delete(HOME.backlog)

    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    async with application(settings.model_copy(update={"database_url": nowhere})) as client:
        before = await scrape(client)
        assert (await client.post("/page-views/home", json={"count": 9_000})).status_code == 202
        # Many views wait, but not for long: this may be a heavy load.
        assert firing(before, await scrape(client)).isdisjoint({"BacklogOld", "BacklogNearCap"})
        await fires(client, before, "FlushesFailing", "RelayFailing")


async def test_an_alert_fires_when_idempotency_keys_have_almost_used_up_their_memory(settings: Settings) -> None:
    async with application(settings.model_copy(update={"keys_bytes": COUNT * 1000})) as client:
        before = await at_rest(client)
        assert (await client.post("/page-views/home", headers={"Idempotency-Key": "x" * 255})).status_code == 202
        assert firing(before, await scrape(client)) == set()
        assert (await client.post("/page-views/home", headers={"Idempotency-Key": "y" * 255})).status_code == 202
        assert firing(before, await scrape(client)) == {"KeysNearCap"}


async def test_an_alert_fires_for_an_outbox_row_that_belongs_to_no_cache(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    async with application(settings) as client:
        before = await at_rest(client)
        await sql.execute("INSERT INTO outbox (resource, key, version) VALUES ('users', 'x', 1)")
        await fires(client, before, "ChangesRefused")


async def test_alerts_fire_while_redis_is_away(settings: Settings, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'ada@example.com')")
    async with (
        RedisWire(settings.redis_url or "") as wire,
        application(settings.model_copy(update={"redis_url": wire.url})) as client,
    ):
        before = await at_rest(client)
        wire.refuse()
        assert (await client.patch("/users/1", json={"name": "Ada King"})).status_code == 200
        # The first failed invalidation. Before it, the counter does not exist.
        after = await scrape(client)
        assert "InvalidationsFailing" in firing(before, after)
        assert firing(after, after).isdisjoint({"InvalidationsFailing", "RelayFailing"})
        await fires(client, before, "BreakerOpen", "RelayFailing")
        assert (await client.patch("/users/1", json={"name": "Ada Lovelace"})).status_code == 200
        # And the second one.
        assert "InvalidationsFailing" in firing(after, await scrape(client))
        wire.heal()
        await at_rest(client)


async def test_a_dead_letter_alert_fires_until_the_letter_is_discarded(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    async with application(settings) as client:
        before = await at_rest(client)
        await sql.execute("INSERT INTO dead_letters (page, delta, reason, deliveries) VALUES ('home', 3, '', 1)")
        assert firing(before, await scrape(client)) == {"DeadLetters"}
        assert (await client.delete("/write-behind/dead-letters/1")).status_code == 204
        assert firing(before, await scrape(client)) == set()


async def test_an_alert_fires_while_the_row_of_a_page_is_locked(
    settings: Settings, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other pages are counted meanwhile, and the locked page in the end."""
    monkeypatch.setattr("app.page_views.parking.EVERY", timedelta(milliseconds=50))
    await sql.execute("INSERT INTO page_views VALUES ('home', 0)")
    async with application(settings) as client:
        before = await at_rest(client)
        async with sql.transaction():
            await sql.execute("SELECT FROM page_views WHERE page = 'home' FOR UPDATE")
            assert (await client.post("/page-views/home", json={"count": 3})).status_code == 202
            assert (await client.post("/page-views/news", json={"count": 2})).status_code == 202
            await fires(client, before, "ViewsParked")
            status = (await client.get("/write-behind")).json()
            assert (status["parked"], status["dead_letters"]) == (3, 0)
            assert (await client.get("/page-views/home")).json()["views"] == 3

        async def is_settled() -> bool:
            return firing(before, await scrape(client)) == set()

        await eventually(is_settled)
        assert await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 3


async def test_alerts_fire_when_redis_has_lost_views(
    held_back: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with application(held_back) as client:
        before = await at_rest(client)
        await client.post("/page-views/home", json={"count": 40})
        await redis.flushdb()
        assert await fires(client, before, "ViewsRecovered") == {"ViewsRecovered"}
        # The alert stops some time after the loss.
        after = await at_rest(client)
        # From now on, the process keeps no views for recovery, but only their number.
        monkeypatch.setattr("app.caching.write_behind.receipts.KEPT", 0)
        monkeypatch.setattr("app.caching.write_behind.recovery.IN_HAND", timedelta(0))
        await client.post("/page-views/home", json={"count": 40})
        await redis.flushdb()
        assert "ViewsLost" in await fires(client, after, "ViewsLost")


async def test_an_alert_fires_when_somebody_has_removed_entries(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.caching.write_behind.gathering.ABANDONED", timedelta(milliseconds=200))
    async with application(settings) as client:
        before = await at_rest(client)

        async def has_groups() -> bool:
            return all([await redis.exists(shard.stream) for shard in shards("views")])

        await eventually(has_groups)
        # A flusher reads the entry and dies, and somebody removes the entry. All of it happens in one transaction, or
        # our own flusher would read it.
        at = round(time.time() * 1000)
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.xadd(HOME.stream, {"batch": ulid(at), "deltas": '{"home": 3}', "views": 3}, id=f"{at}-0")
            pipeline.xreadgroup(GROUP, "somebody", {HOME.stream: ">"})
            pipeline.xdel(HOME.stream, f"{at}-0")
            await pipeline.execute()
        assert await fires(client, before, "EntriesRemoved") == {"EntriesRemoved"}

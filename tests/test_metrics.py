"""The counters of one process. `test_serving.py` tests those of several workers."""

from datetime import timedelta

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Metrics

NOW = timedelta(0)


def test_cache_events_are_counted_by_resource_and_event() -> None:
    metrics = Metrics()
    for event in ("hit", "hit", "miss"):
        metrics.observe("users", event, NOW)
    metrics.observe("products", "hit", NOW)
    assert metrics.totals("cache_events", resource="users") == {"hit": 2, "miss": 1}
    assert metrics.totals("cache_events", resource="products") == {"hit": 1}
    assert metrics.totals("cache_events", event="hit") == {"users": 2, "products": 1}
    assert metrics.totals("cache_events", resource="inventory") == {}


def test_only_loads_are_measured() -> None:
    metrics = Metrics()
    metrics.observe("users", "loaded", timedelta(seconds=0.25))
    metrics.observe("users", "hit", NOW)
    assert _samples(metrics.text(), "fourways_load_seconds_sum") == {"users": 0.25}
    assert _samples(metrics.text(), "fourways_load_seconds_count") == {"users": 1}


def test_queries_commits_and_relayed_changes_are_counted() -> None:
    metrics = Metrics()
    metrics.count_query("users")
    metrics.count_query("users")
    metrics.count_query("outbox")
    metrics.count_relayed(3, 0)
    metrics.count_relayed(0, 1)
    metrics.count_commit("users")
    assert metrics.totals("database_queries") == {"users": 2, "outbox": 1}
    assert metrics.totals("database_commits") == {"users": 1}
    assert _samples(metrics.text(), "fourways_outbox_relayed_total") == {"": 3}
    assert _samples(metrics.text(), "fourways_outbox_failures_total") == {"": 1}


def test_two_applications_in_one_process_count_separately() -> None:
    one, other = Metrics(), Metrics()
    one.observe("users", "hit", NOW)
    assert other.totals("cache_events", resource="users") == {}


async def test_reads_over_http_are_hits_and_misses_with_their_queries(client: httpx.AsyncClient) -> None:
    for _ in range(5):
        await client.get("/users/1")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    events = {
        sample.labels["event"]: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "fourways_cache_events_total" and sample.labels["resource"] == "users"
    }
    assert events == {"miss": 1, "loaded": 1, "stored": 1, "hit": 4}
    assert _samples(answer.content, "fourways_database_queries_total")["users"] == 1


def _samples(text: bytes, name: str) -> dict[str, float]:
    return {
        sample.labels.get("resource", ""): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


async def test_backlog_and_lock_waits_are_in_the_metrics(client: httpx.AsyncClient) -> None:
    assert (await client.put("/inventory/A", json={"quantity": 3})).status_code == 201
    text = (await client.get("/metrics")).text
    assert "fourways_lock_wait_seconds_count 1.0" in text
    assert "fourways_views_backlog 0.0" in text
    assert "fourways_views_backlog_oldest_seconds 0.0" in text

"""The counters and histograms that Prometheus reads at /metrics. With several workers, they are those of all workers.

What can go wrong: a worker cannot write the files in which the workers count together (`counting_files.py`). Then it
counts in its memory and reports only itself, and a line in the log says so.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from app.counting_files import VARIABLE, end_gauges_of_the_dead, make_files, name_directory

name_directory()  # Before the import of prometheus_client, which reads it.

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values  # noqa: E402  # see above
from prometheus_client.core import GaugeMetricFamily, Metric  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

logger = logging.getLogger(__name__)


class Metrics:
    """The metrics of the service, one instance per process."""

    def __init__(self) -> None:
        self._directory: Path | None
        self._lock: BinaryIO | None
        self._directory, self._lock = _directory()
        self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"fourways_{name}", text, labels, registry=self._registry)

        self._events = counter("cache_events", "What happened in a cache, by resource.", "resource", "event")
        self._children: dict[tuple[str, str], Counter] = {}
        self._queries = counter("database_queries", "Statements sent to Postgres, by resource.", "resource")
        self._commits = counter("database_commits", "Changes that requests have committed, by resource.", "resource")
        self._load_seconds = Histogram(
            "fourways_load_seconds", "How long a load from Postgres took.", ["resource"], registry=self._registry
        )
        self._lock_seconds = Histogram(
            "fourways_lock_wait_seconds",
            "How long a change of stock waited for its lock.",
            registry=self._registry,
        )
        self._open = Gauge(
            "fourways_breaker_open",
            "Whether Redis is not believed: 1 while any worker reads past it.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._open.set(1)  # Until a relay closes it.
        self._opened = counter("breaker_opened", "How often Redis was not believed any more.")
        self._relayed = counter("outbox_relayed", "Changes that the relay delivered to the caches.")
        self._relay_failures = counter("outbox_failures", "Polls of the outbox that failed.")
        self._refused_changes = counter(
            "outbox_refused", "Changes that no cache can be told of, and that were set aside."
        )
        flushes = counter("view_flushes", "Flushes of page views.", "result")
        self._flow: dict[str, Counter] = {
            "read": counter("views_read", "Totals of page views that were asked for."),
            "accepted": counter("views_accepted", "Page views accepted."),
            "flushed": counter("views_flushed", "Page views flushed to Postgres."),
            "rows": counter("view_rows_written", "Rows that those took: views per row is the coalescing."),
            "flushes": flushes.labels("done"),
            "failures": flushes.labels("failed"),
            "dead": counter("views_dead", "Page views that became dead letters."),
            "gone": counter("view_entries_gone", "Entries removed from the stream before they were flushed."),
            "recovered": counter("views_recovered", "Page views that Redis had lost and that were accepted again."),
            "lost": counter("views_lost", "Page views accepted and lost for good."),
        }

    def observe(self, resource: str, event: str, took: timedelta, times: int = 1) -> None:
        """Counts an event of a cache, `times` times. Also measures the duration of a load."""
        # A dict lookup: finding a child by its labels takes a third of the time of a hit.
        child = self._children.get((resource, event))
        if child is None:
            child = self._children[resource, event] = self._events.labels(resource, event)
        child.inc(times)
        if event == "loaded":
            self._load_seconds.labels(resource).observe(took.total_seconds())

    def observe_breaker(self, is_open: bool) -> None:
        """Records that the breaker has opened or closed."""
        self._open.set(is_open)
        self._opened.inc(is_open)

    def observe_lock_wait(self, took: timedelta) -> None:
        """Records how long a change of stock waited for its SKU's lock."""
        self._lock_seconds.observe(took.total_seconds())

    def count_query(self, resource: str) -> None:
        """Counts a statement sent to Postgres."""
        self._queries.labels(resource).inc()

    def count_commit(self, resource: str) -> None:
        """Counts a change committed by a request."""
        self._commits.labels(resource).inc()

    def count_relayed(self, changes: int, failures: int) -> None:
        """Counts changes that the relay delivered, and its failed polls."""
        self._relayed.inc(changes)
        self._relay_failures.inc(failures)

    def count_refused_change(self) -> None:
        """Counts a change that the relay has set aside."""
        self._refused_changes.inc()

    def observe_flow(self, flow: str, count: int) -> None:
        """Counts an event of page views on their way to Postgres."""
        self._flow[flow].inc(count)

    def text(self) -> bytes:
        """Returns all metrics of all workers, in Prometheus' text format."""
        return generate_latest(self._all())

    def gauges_text(self, values: Mapping[str, tuple[str, float]]) -> bytes:
        """Returns current values, given by name with their help text, in the same format. They are the same for all
        workers, so they are not added up."""
        registry = CollectorRegistry()
        registry.register(_Gauges(values))
        return generate_latest(registry)

    def totals(self, name: str, **labels: str) -> dict[str, float]:
        """Returns the counter `name` over all workers, limited to `labels`, by the value of its remaining label."""
        totals: dict[str, float] = {}
        for metric in self._all().collect():
            for sample in metric.samples:
                if sample.name == f"fourways_{name}_total" and labels.items() <= sample.labels.items():
                    (rest,) = (value for label, value in sample.labels.items() if label not in labels)
                    totals[rest] = totals.get(rest, 0.0) + sample.value
        return totals

    def total(self, name: str) -> float:
        """Returns the unlabelled counter `name` over all workers."""
        samples = (sample for metric in self._all().collect() for sample in metric.samples)
        return sum(sample.value for sample in samples if sample.name == f"fourways_{name}_total")

    def _all(self) -> CollectorRegistry:
        if self._directory is None:
            return self._registry
        end_gauges_of_the_dead(self._directory)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(self._directory))  # type: ignore[no-untyped-call]
        return registry


class _Gauges(Collector):
    """Gauges with the current values."""

    def __init__(self, values: Mapping[str, tuple[str, float]]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for name, (text, value) in self._values.items():
            yield GaugeMetricFamily(f"fourways_{name}", text, value)


def _directory() -> tuple[Path, BinaryIO] | tuple[None, None]:
    """Returns the directory in which this process counts together with others, and its lock, which is held until the
    process ends; None if it counts alone."""
    if VARIABLE not in os.environ:
        return None, None
    directory = Path(os.environ[VARIABLE])
    try:
        return directory, make_files(directory)
    except OSError as error:
        logger.warning(
            "This worker reports its own metrics only, without those of others: it cannot write to %s (%s). Set %s to "
            "a directory with space, such as one in /dev/shm.", directory, error.strerror, VARIABLE,
        )  # fmt: skip
        values.ValueClass = values.MutexValue  # What the library uses without that variable.
        return None, None

"""Reads the traffic of a running service from its /metrics: by resource, since the start, summed over all workers.

What can go wrong: `MetricsError`, when nothing answers there, or another program does.
"""

from collections.abc import Mapping
from http.client import HTTPException, InvalidURL
from urllib.parse import urlsplit
from urllib.request import urlopen

from app.advice import Traffic
from app.caching import Outcome
from app.errors import FourwaysError
from app.routers.strategies import CACHED

PATIENCE = 10.0
"""Timeout, in seconds."""
LARGEST = 2**24
"""The most bytes read of an answer."""


class MetricsError(FourwaysError):
    """No traffic can be read at this address."""


def read_metrics(url: str) -> Mapping[str, Traffic]:
    """Returns the traffic by resource, as `/users`. `url` is the whole address, http://127.0.0.1:8000/metrics. Raises
    MetricsError."""
    if not _is_address(url):
        raise MetricsError(f"{url!r} is no address of /metrics, such as http://127.0.0.1:8000/metrics.")
    try:
        with urlopen(url, timeout=PATIENCE) as answer:
            text = answer.read(LARGEST).decode()
        return parse_metrics(text)
    except InvalidURL as error:
        raise MetricsError(f"{url!r} is no address: {error}.") from error
    except HTTPException as error:
        raise MetricsError(f"{url} does not answer as HTTP does: another program is there.") from error
    except OSError as error:
        raise MetricsError(f"{url} does not answer: {getattr(error, 'reason', error)}.") from error
    except (ValueError, OverflowError) as error:
        raise MetricsError(f"{url} does not answer in Prometheus' text format, or not as Fourways does.") from error


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def parse_metrics(text: str) -> Mapping[str, Traffic]:
    """Returns the same from the text. Raises ValueError when the text is another program's."""
    # Imported here, not at the top: on import the library decides whether to count across workers. The workers that the
    # command line spawns import this file before `app/metrics.py` has configured that.
    from prometheus_client.parser import text_string_to_metric_families

    reads = dict.fromkeys(CACHED, 0)
    writes = dict.fromkeys(CACHED, 0)
    views: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            resource, count = sample.labels.get("resource", ""), int(sample.value)
            if sample.name == "fourways_cache_events_total" and resource in reads:
                reads[resource] += count if sample.labels["event"] in tuple(Outcome) else 0
            elif sample.name == "fourways_database_commits_total" and resource in writes:
                writes[resource] += count
            elif sample.name in ("fourways_views_read_total", "fourways_views_accepted_total"):
                views[sample.name] = count
    if not views:  # Fourways exposes them from its start.
        raise ValueError("There are no counters of Fourways.")
    traffic = {f"/{name}": Traffic(reads[name], writes[name]) for name in CACHED}
    of_views = Traffic(views["fourways_views_read_total"], views["fourways_views_accepted_total"])
    return traffic | {"/page-views": of_views}

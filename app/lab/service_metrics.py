"""The traffic of a running service, from its /metrics: of each resource, since it started, all workers together.

What can go wrong: `MetricsError`, where nobody answers, or somebody else.
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
"""Seconds."""
LARGEST = 2**24
"""Bytes that are read of an answer."""


class MetricsError(FourwaysError):
    """There is no traffic to be read there."""


def read_metrics(url: str) -> Mapping[str, Traffic]:
    """By resource, as `/users`. `url` is the whole address, http://127.0.0.1:8000/metrics. Raises MetricsError."""
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
    """The same, of the text. Raises ValueError where it is another program's."""
    # Not above: the library decides when it is imported whether workers count together, and those that the command line
    # has spawned import this file before `app/metrics.py` has told it.
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
    if not views:  # It has them from its start on.
        raise ValueError("There are no counters of Fourways.")
    traffic = {f"/{name}": Traffic(reads[name], writes[name]) for name in CACHED}
    of_views = Traffic(views["fourways_views_read_total"], views["fourways_views_accepted_total"])
    return traffic | {"/page-views": of_views}

"""The traffic of a running service, from the text of its /metrics."""

import http.server
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from app.advice import Traffic
from app.lab.service_metrics import MetricsError, parse_metrics, read_metrics

OURS = """\
# TYPE fourways_cache_events_total counter
fourways_cache_events_total{event="hit",resource="users"} 70.0
fourways_cache_events_total{event="miss",resource="users"} 20.0
fourways_cache_events_total{event="stored",resource="users"} 20.0
fourways_cache_events_total{event="invalidated",resource="users"} 9.0
fourways_cache_events_total{event="locked",resource="inventory"} 1.0
# TYPE fourways_database_commits_total counter
fourways_database_commits_total{resource="users"} 4.0
fourways_database_commits_total{resource="page_views"} 3.0
# TYPE fourways_views_read_total counter
fourways_views_read_total 5.0
# TYPE fourways_views_accepted_total counter
fourways_views_accepted_total 600.0
"""


def test_reads_are_cache_outcomes_and_writes_are_commits_or_accepted_views() -> None:
    assert parse_metrics(OURS) == {
        "/users": Traffic(90, 4),
        "/products": Traffic(0, 0),
        "/inventory": Traffic(1, 0),
        "/page-views": Traffic(5, 600),
    }


async def test_a_service_that_has_just_started_has_no_traffic(client: httpx.AsyncClient) -> None:
    assert set(parse_metrics((await client.get("/metrics")).text).values()) == {Traffic(0, 0)}


class Page(http.server.BaseHTTPRequestHandler):
    """Another program's page, or none."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/none" else 200)
        self.end_headers()
        self.wfile.write(
            {"/binary": b"\xff\xfe\x00", "/endless": b"fourways_views_read_total +Inf\n"}.get(
                self.path, b"<html>Hello</html>"
            )
        )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Logs nothing."""


@pytest.fixture
def another() -> Iterator[str]:
    """The address of another program."""
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/page", "not as Fourways does."),
        ("/binary", "not as Fourways does."),
        ("/none", "does not answer: Not Found."),
    ],
)
def test_an_answer_of_another_program_is_an_error(another: str, path: str, sentence: str) -> None:
    with pytest.raises(MetricsError, match=sentence):
        read_metrics(another + path)


@pytest.mark.parametrize("url", ["localhost:8000/metrics", "file:///etc/hostname", ""])
def test_a_url_that_is_no_metrics_address_is_an_error(url: str) -> None:
    with pytest.raises(MetricsError, match="is no address of /metrics"):
        read_metrics(url)


@pytest.fixture
def no_http() -> Iterator[str]:
    """The address of a program that answers as SSH does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        thread.join()


def test_a_program_that_does_not_speak_http_is_an_error(no_http: str) -> None:
    with pytest.raises(MetricsError, match="does not answer as HTTP does"):
        read_metrics(no_http)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http:///metrics", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://a b/metrics"]
)
def test_a_malformed_address_is_an_error(url: str) -> None:
    with pytest.raises(MetricsError, match="is no address"):
        read_metrics(url)


def test_an_infinite_counter_is_an_error(another: str) -> None:
    with pytest.raises(MetricsError, match="not as Fourways does"):
        read_metrics(f"{another}/endless")

"""The stores that a command of the lab uses: those that are configured, or else a pair of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded import Endpoints, embedded_servers
from app.settings import read_settings


@contextmanager
def stores() -> Iterator[Endpoints]:
    """Both addresses. What was started is stopped at the end, and its data removed.

    Raises SettingsError, and EmbeddedError when they cannot be started.
    """
    settings = read_settings()
    if settings.redis_url is not None and settings.database_url is not None:
        yield Endpoints(settings.redis_url, settings.database_url)
        return
    with tempfile.TemporaryDirectory(prefix="fourways-lab-", ignore_cleanup_errors=True) as directory:
        # As root, Postgres runs as another user, who has to get in.
        Path(directory).chmod(0o755)
        with embedded_servers(Path(directory)) as endpoints:
            yield endpoints

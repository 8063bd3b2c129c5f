"""The stores that a command of the lab uses: those that are configured, or else a pair of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.embedded import EmbeddedError, Endpoints, embedded_servers
from app.settings import read_settings

PREFIX = "fourways-lab-"


@contextmanager
def stores() -> Iterator[Endpoints]:
    """Both addresses. What was started is stopped at the end, and its data removed.

    Raises SettingsError, and EmbeddedError when they cannot be started.
    """
    settings = read_settings()
    if settings.redis_url is not None and settings.database_url is not None:
        yield Endpoints(settings.redis_url, settings.database_url)
        return
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as directory:
        # As root, Postgres runs as another user, who has to get in.
        Path(directory).chmod(0o755)
        with embedded_servers(Path(directory)) as endpoints:
            yield endpoints


def _sweep() -> None:
    """Stops what a lab has left running that was killed, and removes it."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            os.kill(int(left.name.removeprefix(PREFIX).split("-")[0]), 0)
        except ProcessLookupError:
            if not left.is_symlink():
                # What another lab is clearing up at this moment, or what does not stop, is left: it needs its place.
                with suppress(EmbeddedError):
                    with embedded_servers(left):  # To run servers where some are running is to adopt them.
                        pass
                    shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OverflowError, PermissionError):
            continue  # Not one of ours, or another user's.

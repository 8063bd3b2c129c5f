"""The stores that a lab command uses: the configured ones, or else its own pair."""

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
    """Yields both addresses. What was started is stopped at the end, and its data removed.

    Raises SettingsError, and EmbeddedError when the stores cannot be started.
    """
    settings = read_settings()
    if settings.redis_url is not None and settings.database_url is not None:
        yield Endpoints(settings.redis_url, settings.database_url)
        return
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as directory:
        # As root, Postgres runs as another user, who needs access.
        Path(directory).chmod(0o755)
        with embedded_servers(Path(directory)) as endpoints:
            yield endpoints


def _sweep() -> None:
    """Stops and removes the servers that a killed lab has left running."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            os.kill(int(left.name.removeprefix(PREFIX).split("-")[0]), 0)
        except ProcessLookupError:
            if not left.is_symlink():
                # A directory that another lab is cleaning up now, or whose servers do not stop, is kept: it is in use.
                with suppress(EmbeddedError):
                    with embedded_servers(left):  # Running servers where some already run adopts these.
                        pass
                    shutil.rmtree(left, ignore_errors=True)
        except (ValueError, OverflowError, PermissionError):
            continue  # Not one of ours, or another user's.

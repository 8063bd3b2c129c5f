"""A name that leads to one server, and later to another, while connections to the first live on, like DNS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.open_directory import open_directory


class Name:
    """A link at `path`. A new connection through it goes where it leads at that moment."""

    @classmethod
    @contextmanager
    def leading_to(cls, target: Path) -> Iterator[Self]:
        """Yields a name that leads to a socket, or to the directory of one, until the block ends."""
        with open_directory() as directory:
            name = cls(directory / "name")
            name.lead_to(target)
            yield name

    def __init__(self, path: Path) -> None:
        self.path = path

    def lead_to(self, target: Path) -> None:
        """Makes the name lead to `target` from now on. Existing connections stay."""
        link = self.path.with_suffix(".new")
        link.symlink_to(target)
        link.replace(self.path)

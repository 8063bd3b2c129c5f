"""A name that leads to one server, and later to another one, while connections to the first live on: DNS in small."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.open_directory import open_directory


class Name:
    """A link at `path`. Whoever connects through it goes where it leads then."""

    @classmethod
    @contextmanager
    def leading_to(cls, target: Path) -> Iterator[Self]:
        """A name that leads to a socket, or to the directory of one, until the block ends."""
        with open_directory() as directory:
            name = cls(directory / "name")
            name.lead_to(target)
            yield name

    def __init__(self, path: Path) -> None:
        self.path = path

    def lead_to(self, target: Path) -> None:
        """From now on it leads there. The connections there are stay."""
        link = self.path.with_suffix(".new")
        link.symlink_to(target)
        link.replace(self.path)

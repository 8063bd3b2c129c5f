"""The resources whose coherence is checked. Each module here describes one, as `CHECKED`."""

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules


@dataclass(frozen=True, slots=True)
class Checked:
    """A resource with a service that has `get(key)` and `change(key, changes, expected)`."""

    name: str
    """Name of the resource, of its table, and of its attribute of `Resources`."""
    insert: str
    """A statement that adds a row whose `field` is `old`, and returns its key."""
    key: str
    """The column of the key."""
    field: str
    """A column that can be set to any text."""


def all_of_them() -> list[Checked]:
    """Returns the resources of all modules."""
    return [import_module(f"{__name__}.{module.name}").CHECKED for module in iter_modules(__path__)]

"""The resources whose coherence is checked: each module here describes one, as `CHECKED`."""

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules


@dataclass(frozen=True, slots=True)
class Checked:
    """A resource with a service that has `get(key)` and `change(key, changes, expected)`."""

    name: str
    """Of the resource, its table, and its attribute of `Resources`."""
    insert: str
    """Adds a row whose `field` is `old`, and answers its key."""
    key: str
    """The key's column."""
    field: str
    """A column that can be changed to any text."""


def all_of_them() -> list[Checked]:
    """Those of all modules."""
    return [import_module(f"{__name__}.{module.name}").CHECKED for module in iter_modules(__path__)]

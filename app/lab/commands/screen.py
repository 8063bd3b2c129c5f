"""Where the lab's commands write: results to standard output, all other messages to standard error."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Without markup and emoji: a path or a value may contain what looks like them.
console = Console(highlight=False, markup=False, emoji=False)
complaints = Console(highlight=False, markup=False, emoji=False, stderr=True)


def bar() -> Progress:
    """Returns a progress bar with the time left. It disappears when it ends."""
    return Progress(
        TextColumn("{task.description:36}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=complaints,
        transient=True,
        # In a file it would only be a blank line.
        disable=not complaints.is_terminal,
    )

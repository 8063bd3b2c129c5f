"""Where the lab's commands write: answers to standard output, and what else is to be told to standard error."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Without markup and emoji: a path or a value may contain what looks like it.
console = Console(highlight=False, markup=False, emoji=False)
complaints = Console(highlight=False, markup=False, emoji=False, stderr=True)


def bar() -> Progress:
    """How far a command is, with the time left. It is gone when it ends."""
    return Progress(
        TextColumn("{task.description:36}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=complaints,
        transient=True,
        # In a file it would be a blank line, and nothing else.
        disable=not complaints.is_terminal,
    )

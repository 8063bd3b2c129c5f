"""The command: `python -m tests.benchmarks`, with `--only`, `--quick`, `--output` and `--publish`.

It starts its own Redis and Postgres, and stops them at the end, even after Ctrl-C. It needs the extra `bench`.
"""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.embedded import EmbeddedError, Endpoints, embedded_servers
from app.schema import migrate
from tests.benchmarks import wrk
from tests.benchmarks.measurement import Result, WrongAnswer
from tests.benchmarks.report import Machine, keep, publish, show
from tests.benchmarks.stage import FULL, QUICK, Stage, on, processors

QUESTIONS = (
    "hit_over_http",
    "steps",
    "hit_in_library",
    "many_keys",
    "stampede",
    "views_accepted",
    "views_drained",
    "shards",
    "cluster_hits",
    "write_through",
    "poolers",
    "growth",
    "fleet",
)

console = Console(highlight=False, soft_wrap=True, markup=False)
console.width = max(console.width, 120)  # Without a terminal it would be 80.
commands = typer.Typer(add_completion=False)


@commands.command(help="Measure, in turns with other ways of doing the same. " + f"Questions: {', '.join(QUESTIONS)}.")
def benchmarks(
    only: Annotated[list[str] | None, typer.Option(help="A question; may be given more than once.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short turns and small caches: rough figures.")] = False,
    output: Annotated[Path, typer.Option(help="Where results.json and the charts go.")] = Path(".fourways/benchmarks"),
    document: Annotated[
        Path | None, typer.Option("--publish", help="A document whose tables and charts are replaced, too.")
    ] = None,
) -> None:
    """Runs the questions one after another."""
    names = only or list(QUESTIONS)
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        raise typer.BadParameter(f"There is no question {unknown[0]}: choose from {', '.join(QUESTIONS)}.")
    # A parent may have set it to be ignored, as a shell does for background jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = _measured(names, quick)
    except (WrongAnswer, EmbeddedError) as error:
        console.print(f"The run has failed: {error}", style="red")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped; nothing was kept.")
        raise SystemExit(130) from None
    machine = Machine.this("wrk" if wrk.program() else "an asyncio generator")
    console.print(f"\n{machine}")
    keep(output, machine, results)
    console.print(f"Kept in {output}.")
    if document is not None:
        publish(document, machine, results)
        console.print(f"Published in {document}.")


def _measured(names: Sequence[str], quick: bool) -> Sequence[Result]:
    try:
        questions = [import_module(f"tests.benchmarks.{name}") for name in names]
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install -e '.[dev,bench]'")
    results = []
    with _servers() as endpoints, on(processors()[0]):
        for question in questions:
            with Progress(
                SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
            ) as progress:
                name = question.__name__.rpartition(".")[2]
                task = progress.add_task(name)

                def report(text: str, progress: Progress = progress, task: object = task, name: str = name) -> None:
                    progress.update(task, description=f"{name}: {text}")  # type: ignore[arg-type]

                stage = Stage(endpoints, QUICK if quick else FULL, report)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    results.append(runner.run(question.measure(stage)))
            show(console, results[-1])
    return results


@contextmanager
def _servers() -> Iterator[Endpoints]:
    """Starts a Redis and a migrated Postgres, on the processors that are not measured.

    They are not interrupted while they start or stop, so that nothing is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="fourways-bench-", ignore_cleanup_errors=True) as name:
        # As root, Postgres runs as another user, who needs access.
        directory = Path(name)
        directory.chmod(0o755)
        servers = embedded_servers(directory)
        try:
            with on(processors()[1]), _uninterrupted():
                endpoints = servers.__enter__()
            migrate(endpoints.database_url)
            yield endpoints
        finally:
            with _uninterrupted(for_good=True):
                servers.__exit__(None, None, None)


@contextmanager
def _uninterrupted(*, for_good: bool = False) -> Iterator[None]:
    """Postpones Ctrl-C and SIGTERM until the block ends, or discards them."""
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    if for_good:
        return
    for number, handler in before.items():
        signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Does what Ctrl-C does: a running event loop has its own handler for that.
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    commands()

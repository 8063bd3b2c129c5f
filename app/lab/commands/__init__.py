"""`fourways lab`: your traffic through every strategy; the races; and which strategy to choose."""

import io
import sys

import typer

from app.lab.commands.advise import advise_
from app.lab.commands.compare import compare_
from app.lab.commands.races import races_

lab = typer.Typer(
    help="Your traffic, through every strategy, on a real Redis and a real Postgres.", no_args_is_help=True
)


@lab.callback()
def _prepare() -> None:
    # A terminal of another encoding cannot print an arrow: better a question mark than no table after a minute.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


lab.command("compare")(compare_)
lab.command("races")(races_)
lab.command("advise")(advise_)

__all__ = ["lab"]

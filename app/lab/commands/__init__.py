"""`fourways lab`: your traffic, through every strategy; the races; and which strategy it should be."""

import typer

from app.lab.commands.advise import advise_
from app.lab.commands.compare import compare_
from app.lab.commands.races import races_

lab = typer.Typer(
    help="Your traffic, through every strategy, on a real Redis and a real Postgres.", no_args_is_help=True
)
lab.command("compare")(compare_)
lab.command("races")(races_)
lab.command("advise")(advise_)

__all__ = ["lab"]

"""`fourways grants`: print what the service needs in its stores, or apply it in Postgres."""

import asyncio
import re
from typing import Annotated

import typer
from rich.console import Console

from app.grants import postgres_grants, redis_grants
from app.service_role import prepare_role
from app.settings import read_role_urls, read_settings

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
grants = typer.Typer(
    help="Print what the service needs in its stores, for a role and a user that may do nothing else; or apply it.",
    no_args_is_help=True,
)


@grants.command("postgres")
def print_for_postgres(
    role: Annotated[str, typer.Option(help="The role of DATABASE_URL. CREATE ROLE makes it.")],
) -> None:
    """Print the GRANTs for the service's role: pipe them to psql, as the role that migrates."""
    console.print(postgres_grants(role))


@grants.command("redis")
def print_for_redis(
    user: Annotated[str, typer.Option(help="The user of REDIS_URL. It is made if it is not there.")],
) -> None:
    """Print the ACL SETUSER for the service's user, with FOURWAYS_PREFIX: pipe it to redis-cli.

    It sets no password. Without one nobody can log in: ACL SETUSER <user> '><password>'.
    """
    if not re.fullmatch(r"[^\s\0\"'\\]+", user):
        raise typer.BadParameter(f"A user of Redis has no blank and no quotation mark in its name: {user!r}.")
    console.print(redis_grants(user, read_settings().prefix))


@grants.command()
def apply() -> None:
    """Permit the role of DATABASE_URL what the service needs, as the role of OWNER_URL, which has migrated.

    If it cannot log in, it is made, or gets the password of DATABASE_URL. Doing it again does no harm.
    """
    role = asyncio.run(prepare_role(*read_role_urls()))
    console.print(f"The role {role!r} may do what the service needs.")

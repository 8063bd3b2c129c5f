"""Unix sockets of Postgres: where hosted ones have it, and where it is if nobody says so."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.connection import connect
from app.embedded import Endpoints
from tests.open_directory import open_directory

SOON = timedelta(seconds=20)


async def test_a_directory_with_colons_in_its_name_as_of_cloud_sql_is_one_socket(servers: Endpoints) -> None:
    with open_directory() as directory:
        (cloud := directory / "project:region:instance").symlink_to(sockets(servers))
        connection = await connect(f"postgresql://fourways:secret@/fourways?host={cloud}", SOON)
        assert await connection.fetchval("SELECT current_user::text") == "fourways"
        await connection.close()


async def test_without_a_host_the_default_directory_has_the_socket(
    servers: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database_url.places.SOCKETS", (str(sockets(servers)),))
    connection = await connect("postgresql://fourways@/fourways", SOON)
    assert await connection.fetchval("SELECT inet_server_addr() IS NULL")
    await connection.close()


async def test_without_a_host_and_without_a_socket_nobody_else_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.database_url.places.SOCKETS", (str(tmp_path),))
    with pytest.raises(FileNotFoundError):
        await connect("postgresql://nobody@/nowhere", SOON)


def sockets(servers: Endpoints) -> Path:
    """Returns the directory of the socket of Postgres."""
    return Path(parse_qs(urlsplit(servers.database_url).query)["host"][0])

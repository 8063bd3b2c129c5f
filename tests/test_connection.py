"""Connections to Postgres: over TLS, to one of several hosts, with the settings of their URL and our limits."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app.connection import Connection, connect
from app.database import open_database
from app.database_url.options import DECIDED
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from tests.faults.certificates import PASSWORD, Certificates
from tests.faults.standby import Standby
from tests.faults.tls_front import Front, tls_front
from tests.service import free_port

TIMEOUT = timedelta(seconds=10)


def directory(database_url: str) -> str:
    """Returns the directory of its socket."""
    return parse_qs(urlsplit(database_url).query)["host"][0]


@asynccontextmanager
async def connected(url: str, timeout: timedelta = TIMEOUT) -> AsyncIterator[Connection]:
    """Yields a connection."""
    connection = await connect(url, timeout)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def front(endpoints: Endpoints, certificates: Certificates) -> AsyncIterator[Front]:
    """A port that speaks TLS if a client asks for it, and leads to Postgres."""
    async with tls_front(Path(directory(endpoints.database_url)) / ".s.PGSQL.5432", certificates, asked=True) as front:
        yield front


def at(front: Front, query: str, host: str = "localhost") -> str:
    """Returns the URL of the Postgres behind a front."""
    return f"postgresql://fourways@{host}:{front.port}/fourways?{query}"


@pytest.mark.parametrize(
    ("query", "encrypted"),
    [
        ("", 1),  # As in libpq: encrypted if possible.
        ("sslmode=disable", 0),
        ("sslmode=require", 1),
        ("sslmode=verify-ca&sslrootcert={0}/ca.crt", 1),
        ("sslmode=verify-full&sslrootcert={0}/ca.crt", 1),
        ("ssl=true", 1),
        ("requiressl=1&ssl_min_protocol_version=TLSv1.3", 1),
        ("sslmode=require&sslcert={0}/client.crt&sslkey={0}/locked.key&sslpassword=" + PASSWORD, 1),
    ],
)
async def test_a_connection_is_encrypted_as_its_url_demands(
    query: str, encrypted: int, front: Front, certificates: Certificates
) -> None:
    async with connected(at(front, query.format(certificates.directory))) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert front.encrypted == encrypted


async def test_an_untrusted_server_is_refused(endpoints: Endpoints, certificates: Certificates) -> None:
    upstream, trusts = (
        Path(directory(endpoints.database_url)) / ".s.PGSQL.5432",
        f"sslrootcert={certificates.path('ca.crt')}",
    )
    async with tls_front(upstream, certificates, name="elsewhere", asked=True) as front:
        async with connected(at(front, f"sslmode=verify-ca&{trusts}")):
            pass
        for query, fate in (
            (f"sslmode=verify-full&{trusts}", "the certificate of another host"),
            (f"sslmode=verify-ca&sslrootcert={certificates.path('client.crt')}", "a certificate that is not trusted"),
        ):
            async with open_database(
                at(front, query), connections=1, timeout=TIMEOUT, counted=lambda resource: None
            ) as database:
                with pytest.raises(DatabaseUnavailable, match=rf"^The database has {fate}\.$"):
                    async with database.reading("things"):
                        pass


async def test_a_server_may_demand_a_certificate_of_the_client(
    endpoints: Endpoints, certificates: Certificates
) -> None:
    upstream = Path(directory(endpoints.database_url)) / ".s.PGSQL.5432"
    async with tls_front(upstream, certificates, asked=True, needs_client=True) as front:
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connect(at(front, "sslmode=require"), TIMEOUT)
        query = f"sslmode=require&sslcert={certificates.path('client.crt')}&sslkey={certificates.path('client.key')}"
        async with connected(at(front, query)) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_session_has_the_settings_of_its_url_and_our_limits(servers: Endpoints) -> None:
    url = f"{servers.database_url}&options=-c%20search_path=pg_catalog%20-c%20work_mem=9MB&application_name=shop"
    async with connected(url) as connection:
        shown = [await connection.fetchval(f"SHOW {name}") for name in ("search_path", "work_mem", "application_name")]
        assert shown == ["pg_catalog", "9MB", "shop"]
        assert await connection.fetchval("SHOW statement_timeout") == "10s"


async def test_no_setting_that_the_application_decides_can_come_from_a_url(servers: Endpoints) -> None:
    async with connected(servers.database_url) as connection:
        set_here = await connection.fetch(
            "SELECT lower(name) AS name FROM pg_settings WHERE source IN ('client', 'session')"
        )
    assert {row["name"] for row in set_here} == set(DECIDED)


async def test_a_service_file_that_is_gone_later_ends_no_connection(
    servers: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services"
    file.write_text(f"[shop]\nhost={directory(servers.database_url)}\nuser=fourways\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    url = "postgresql:///fourways?service=shop"
    async with connected(url):
        file.unlink()
        async with connected(url) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_options_of_the_socket_are_set(front: Front) -> None:
    async with connected(at(front, "keepalives_idle=77&tcp_user_timeout=5000")) as connection:
        own = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # the stubs hide it
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


async def test_a_host_that_refuses_is_passed_over(front: Front) -> None:
    url = f"postgresql://fourways@127.0.0.1:{free_port()},127.0.0.1:{front.port}/fourways"
    async with connected(url) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_silent_host_costs_a_part_of_the_time_for_which_callers_wait(front: Front) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # It accepts, and answers nothing.
        url = (
            f"postgresql://fourways@127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{front.port}/fourways?sslmode=disable"
        )
        async with (
            open_database(url, connections=1, timeout=TIMEOUT, counted=lambda resource: None) as database,
            database.reading("things") as connection,
        ):
            assert (await connection.exec_driver_sql("SELECT 1")).scalar() == 1


async def test_the_time_for_one_host_can_be_shorter() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://fourways@127.0.0.1:{silent.getsockname()[1]}/fourways?connect_timeout=1"
        async with asyncio.timeout(30):
            with pytest.raises(TimeoutError):
                await connect(url, timedelta(minutes=1))


async def test_the_host_that_is_as_the_url_demands_is_found(servers: Endpoints) -> None:
    with Standby.started(servers.database_url) as standby:
        hosts = f"host={directory(standby.url)},{directory(servers.database_url)}"

        async def in_recovery(wanted: str, hosts: str = hosts) -> bool:
            url = f"postgresql://fourways@/fourways?{hosts}&target_session_attrs={wanted}"
            async with connected(url) as connection:
                return bool(await connection.fetchval("SELECT pg_is_in_recovery()"))

        found = {
            wanted: await in_recovery(wanted) for wanted in ("any", "read-write", "primary", "standby", "read-only")
        }
        assert found == {"any": True, "read-write": False, "primary": False, "standby": True, "read-only": True}
        assert await in_recovery("prefer-standby")
        assert not await in_recovery("prefer-standby", f"host={directory(servers.database_url)}")
        url = f"postgresql://fourways@/fourways?host={directory(standby.url)}&target_session_attrs=read-write"
        async with open_database(url, connections=1, timeout=TIMEOUT, counted=lambda resource: None) as database:
            with pytest.raises(
                DatabaseUnavailable, match=r"^No host of the database is what target_session_attrs asks "
            ):
                async with database.reading("things"):
                    pass

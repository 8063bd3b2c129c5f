"""The service with both stores behind TLS, each with its server's name checked."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.certificates import Certificates
from tests.faults.tls_front import tls_front
from tests.service import FOURWAYS, serving
from tests.terminal import terminal


async def test_the_service_reads_writes_and_flushes_over_tls(endpoints: Endpoints, certificates: Certificates) -> None:
    authority = certificates.path("ca.crt")
    postgres = Path(parse_qs(urlsplit(endpoints.database_url).query)["host"][0]) / ".s.PGSQL.5432"
    async with (
        tls_front(Path(urlsplit(endpoints.redis_url).path), certificates) as redis_front,
        tls_front(postgres, certificates, asked=True) as postgres_front,
        serving(
            f"rediss://localhost:{redis_front.port}/0?ssl_ca_certs={authority}",
            f"postgresql://fourways@localhost:{postgres_front.port}/fourways"
            f"?sslmode=verify-full&sslrootcert={authority}&connect_timeout=10&channel_binding=prefer&keepalives_idle=30",
            command=FOURWAYS,
        ) as service,
        service.client() as client,
    ):
        made = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        assert made.status_code == 201
        assert (await client.get(made.headers["Location"])).json()["name"] == "Ada"
        assert (await client.post("/page-views/home", json={"count": 3})).status_code == 202

        async def flushed() -> bool:
            return bool((await client.get("/write-behind")).json()["flushed"] == 3)

        await eventually(flushed)
        assert redis_front.encrypted
        assert postgres_front.encrypted


async def test_certificates_of_other_hosts_are_named_with_what_to_do(
    endpoints: Endpoints, certificates: Certificates, tmp_path: Path
) -> None:
    authority = certificates.path("ca.crt")
    postgres = Path(parse_qs(urlsplit(endpoints.database_url).query)["host"][0]) / ".s.PGSQL.5432"
    async with (
        tls_front(Path(urlsplit(endpoints.redis_url).path), certificates, name="elsewhere") as redis_front,
        tls_front(postgres, certificates, name="elsewhere", asked=True) as postgres_front,
        terminal(
            tmp_path / "screen",
            "fourways",
            "check",
            REDIS_URL=f"rediss://localhost:{redis_front.port}/0?ssl_ca_certs={authority}",
            DATABASE_URL=f"postgresql://fourways@localhost:{postgres_front.port}/fourways"
            f"?sslmode=verify-full&sslrootcert={authority}",
        ) as fourways,
    ):
        assert await fourways.code() == 1
        screen = " ".join(fourways.screen.split())
    assert "it has the certificate of another host: see the host and the ssl_ parameters in REDIS_URL" in screen
    assert "has the certificate of another host: see the host, sslmode and sslrootcert in DATABASE_URL" in screen

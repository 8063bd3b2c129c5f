"""Redis over TLS: who is believed, and who is refused."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from app.caching import open_redis
from app.embedded import Endpoints
from tests.faults.certificates import PASSWORD, Certificates
from tests.faults.tls_front import Front, tls_front
from tests.service import free_port


@pytest.fixture
async def front(endpoints: Endpoints, certificates: Certificates) -> AsyncIterator[Front]:
    """A port that speaks TLS, and leads to Redis."""
    async with tls_front(Path(urlsplit(endpoints.redis_url).path), certificates) as front:
        yield front


async def answers(url: str) -> bool:
    """Whether Redis answers at this URL."""
    async with open_redis(url, timeout=timedelta(seconds=10), connections=1) as redis:
        return bool(await redis.ping())


@pytest.mark.parametrize(
    "query",
    [
        "ssl_ca_certs={0}/ca.crt",
        "ssl_ca_certs={0}/ca.crt&ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=true&ssl_min_version=TLSv1.3",
        "ssl_cert_reqs=CERT_NONE",
        "ssl_cert_reqs=none&ssl_check_hostname=false",
        "ssl_ca_certs={0}/ca.crt&ssl_certfile={0}/client.crt&ssl_keyfile={0}/locked.key&ssl_password=" + PASSWORD,
    ],
)
async def test_redis_answers_over_tls(query: str, front: Front, certificates: Certificates) -> None:
    assert await answers(f"rediss://localhost:{front.port}/3?{query.format(certificates.directory)}")
    assert front.encrypted == 1


@pytest.mark.parametrize("query", ["", "ssl_ca_certs={}/client.crt"])
async def test_a_server_whose_authority_is_unknown_is_not_believed(
    query: str, front: Front, certificates: Certificates
) -> None:
    with pytest.raises(RedisError, match="certificate verify failed"):
        await answers(f"rediss://localhost:{front.port}?{query.format(certificates.directory)}")


async def test_a_server_with_another_name_is_believed_only_if_names_do_not_count(
    endpoints: Endpoints, certificates: Certificates
) -> None:
    async with tls_front(Path(urlsplit(endpoints.redis_url).path), certificates, name="elsewhere") as front:
        url = f"rediss://localhost:{front.port}?ssl_ca_certs={certificates.path('ca.crt')}"
        with pytest.raises(RedisError, match="Hostname mismatch"):
            await answers(url)
        assert await answers(f"{url}&ssl_check_hostname=no")


async def test_a_server_may_demand_a_certificate_of_the_client(
    endpoints: Endpoints, certificates: Certificates
) -> None:
    async with tls_front(Path(urlsplit(endpoints.redis_url).path), certificates, needs_client=True) as front:
        url = f"rediss://localhost:{front.port}?ssl_ca_certs={certificates.path('ca.crt')}"
        with pytest.raises(RedisError):
            await answers(url)
        assert await answers(
            f"{url}&ssl_certfile={certificates.path('client.crt')}&ssl_keyfile={certificates.path('client.key')}"
        )


async def test_certificates_are_loaded_once_for_all_connections(
    front: Front, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To load them takes milliseconds, in which this process does nothing else."""
    loaded = 0
    create = ssl.create_default_context

    def counted() -> ssl.SSLContext:
        nonlocal loaded
        loaded += 1
        return create()

    monkeypatch.setattr(ssl, "create_default_context", counted)
    url = f"rediss://localhost:{front.port}?ssl_ca_certs={certificates.path('ca.crt')}"
    async with open_redis(url, timeout=timedelta(seconds=10), connections=3) as redis:
        await asyncio.gather(*(redis.ping() for _ in range(30)))
    assert (front.encrypted, loaded) == (3, 1)
    nowhere = f"rediss://localhost:{free_port()}?ssl_ca_certs={certificates.path('ca.crt')}"
    async with open_redis(nowhere, timeout=timedelta(seconds=10), connections=3) as redis:
        for _ in range(3):
            with pytest.raises(RedisError):
                await redis.ping()
    assert loaded == 2, "Not again for each attempt: there, nobody speaks TLS."


async def test_certificates_that_were_replaced_are_loaded_after_the_next_failure(
    front: Front, certificates: Certificates, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    shutil.copy(certificates.path("client.crt"), authority)
    url = f"rediss://localhost:{front.port}?ssl_ca_certs={authority}"
    async with open_redis(url, timeout=timedelta(seconds=10), connections=1) as redis:
        with pytest.raises(RedisError, match="certificate verify failed"):
            await redis.ping()
        shutil.copy(certificates.path("ca.crt"), authority)
        assert await redis.ping()

"""A front on a TCP port that speaks TLS, and passes the bytes on to a server on a unix socket that does not.

    application  →  TLS  →  front  →  Redis or Postgres

The embedded servers are built without TLS.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.certificates import Certificates

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
"""How a client of Postgres asks for TLS."""


@dataclass(slots=True)
class Front:
    """Where the front listens on 127.0.0.1, and what it has seen."""

    port: int
    encrypted: int = 0
    """How many connections spoke TLS."""


@asynccontextmanager
async def tls_front(
    upstream: Path, certificates: Certificates, *, name: str = "server", asked: bool = False, needs_client: bool = False
) -> AsyncIterator[Front]:
    """Yields a front with the certificate of this `name`. With `asked`, a client must ask for TLS first, as clients of
    Postgres do, and may go on without it. With `needs_client`, a client must have a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.path(f"{name}.crt"), certificates.path(f"{name}.key"))
    if needs_client:
        context.load_verify_locations(certificates.path("ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            first = b""
            if asked:
                first = await reader.readexactly(8)
                if first == SSL_REQUEST:
                    writer.write(b"S")
                    await writer.start_tls(context)
                    first = b""
            front.encrypted += writer.get_extra_info("ssl_object") is not None
            there, back = await asyncio.open_unix_connection(upstream)
            back.write(first)
            await asyncio.gather(_passed(reader, back), _passed(there, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=None if asked else context)
    front = Front(server.sockets[0].getsockname()[1])
    try:
        yield front
    finally:
        server.close()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

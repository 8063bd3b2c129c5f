"""A real proxy in its own process, in front of a service. It is stopped at the end."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.eventually import PATIENCE, eventually
from tests.open_directory import open_directory
from tests.service import free_port

NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_cache_path {directory}/cache keys_zone=answers:1m;
    gzip on;
    gzip_min_length 1;
    gzip_proxied any;
    gzip_types application/json;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
            proxy_http_version 1.1;
            {cache}
        }}
    }}
}}
"""


@asynccontextmanager
async def nginx(url: str, cache: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of nginx, which compresses answers."""

    def command(directory: Path, port: int) -> list[str]:
        configuration = directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=directory, port=port, url=url, cache=cache))
        return ["-p", str(directory), "-c", str(configuration), "-e", str(directory / "log")]

    async with _running("nginx", command) as client:
        yield client


def caching_nginx(url: str) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Yields a client of nginx that also stores each answer that it may: for two minutes, if the answer gives no
    lifetime."""
    return nginx(url, "proxy_cache answers; proxy_cache_valid any 2m;")


@asynccontextmanager
async def varnish(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of Varnish without any configuration: it stores each answer for two minutes, unless the answer
    forbids that."""

    def command(directory: Path, port: int) -> list[str]:
        return [
            "-F", "-j", "none", "-n", str(directory / "varnish"), "-s", "malloc,16m",
            "-a", f"127.0.0.1:{port}", "-b", url.removeprefix("http://"),
        ]  # fmt: skip

    async with _running("varnishd", command) as client:
        yield client


@asynccontextmanager
async def _running(name: str, command: Callable[[Path, int], list[str]]) -> AsyncIterator[httpx.AsyncClient]:
    # System servers are seldom on a user's PATH.
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"There is no {name} on this machine.")
    with open_directory() as directory:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            program, *command(directory, port), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, verify=False) as client:

                async def answers() -> bool:
                    assert process.returncode is None, f"{name} ended with {process.returncode}."
                    try:
                        return (await client.get("/health/live")).is_success
                    except httpx.TransportError:
                        return False

                await eventually(answers)
                yield client
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), PATIENCE)

"""The application in this process, and a client that calls it without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings


@asynccontextmanager
async def application(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of an application with these settings. The client also raises errors of the application."""
    async with client_of(create_app(settings), raises=True) as client:
        yield client


@asynccontextmanager
async def client_of(
    app: FastAPI, *, raises: bool = False, base_url: str = "http://fourways"
) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of `app`, which starts with the block and stops at its end."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=base_url) as client:
        yield client

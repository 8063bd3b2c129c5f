"""What a client calls: something that keeps the stock of SKUs, and answers as HTTP would."""

from typing import Protocol

from tests.histories.linearizability.operation import Answer


class Refused(Exception):
    """The call was not done, and never will be."""


class Unknown(Exception):
    """The call was done, or will be, or never will be."""


class Broken(Unknown):
    """The answer is one that must never be given, such as a 500; the message quotes it."""


class Target(Protocol):
    """The four calls. Each may raise Refused or Unknown."""

    async def read(self, sku: str) -> Answer: ...
    async def put(self, sku: str, quantity: int) -> Answer: ...
    async def adjust(self, sku: str, delta: int) -> Answer: ...
    async def delete(self, sku: str) -> Answer: ...

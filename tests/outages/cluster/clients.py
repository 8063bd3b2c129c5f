"""The clients of a failover (`tests/outages/failover/clients.py`), whose calls are all in a journal."""

import random
import time
from collections.abc import Sequence

from tests.histories.linearizability.client import Client
from tests.histories.linearizability.operation import Answer as Said
from tests.keep_alive import Answer
from tests.keyed import Keyed
from tests.outages.cluster.journal import Call, Journal
from tests.outages.cluster.slots import of_call
from tests.outages.failover import clients
from tests.outages.failover.any_instance import AnyInstance, Verified
from tests.service import Service

NOTHING = 599, "no answer"
"""What a call was answered whose connection has ended."""


class Clients(clients.Clients):
    """All clients of one round. `name` tells what they write and view from what those of other rounds do."""

    def __init__(
        self,
        name: str,
        services: Sequence[Service],
        rows: Sequence[str],
        skus: Sequence[str],
        randomness: random.Random,
    ) -> None:
        super().__init__(services, rows, randomness)
        self.journal = Journal()
        self.name, self._skus = name, skus

    async def _asked(self, connection: Keyed, method: str, path: str, body: object = None) -> Answer:
        began = time.monotonic()
        answer = await super()._asked(connection, method, path, body)
        said = answer.status, problem(answer)
        self.journal.calls.append(Call(f"{method} {path}", of_call(path, body), began, time.monotonic(), *said))
        return answer

    async def _write_once(self, connection: Keyed, key: str, name: str) -> None:
        await super()._write_once(connection, key, f"{name} in {self.name}")

    async def _shop(self, own: random.Random, name: str) -> None:
        target = JournaledStock([service.url for service in self._services], own, self.journal)
        client = Client(name, target, self.shelf.recorder, own)
        try:
            while not self._over.is_set():
                await client.call(self._skus)
        finally:
            await target.close()

    async def _visit(self, own: random.Random, name: str) -> None:
        await super()._visit(own, f"{self.name}/{name}")


class JournaledStock(AnyInstance):
    """Calls a random instance each time."""

    def __init__(self, urls: Sequence[str], randomness: random.Random, journal: Journal) -> None:
        super().__init__(urls, randomness)
        self._targets = [JournaledInstance(url, journal) for url in urls]


class JournaledInstance(Verified):
    """One instance."""

    def __init__(self, url: str, journal: Journal) -> None:
        super().__init__(url)
        self._journal, self._said = journal, NOTHING

    def heard(self, answer: Answer) -> None:
        """Keeps what it says."""
        self._said = answer.status, problem(answer)
        super().heard(answer)

    async def _ask(self, sku: str, method: str, body: object = None, *, path: str = "") -> Said:
        began, self._said = time.monotonic(), NOTHING
        try:
            return await super()._ask(sku, method, body, path=path)
        finally:
            where = f"/inventory/{sku}{path}"
            self._journal.calls.append(Call(f"{method} {where}", of_call(where), began, time.monotonic(), *self._said))


def problem(answer: Answer) -> str:
    """Returns what an answer says of a problem."""
    return str(answer.json()["detail"]) if answer.status >= 500 else ""

"""The service, called over HTTP on one connection, which is replaced when it fails."""

from tests.histories.linearizability.operation import Answer
from tests.histories.linearizability.target import Broken, Refused, Unknown
from tests.keep_alive import Answer as Http
from tests.keyed import HUNG_UP, Keyed


class HttpTarget:
    """A client of the service at `url`. Close it at the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: _Connection | None = None

    async def read(self, sku: str) -> Answer:
        """GET."""
        return await self._ask(sku, "GET")

    async def put(self, sku: str, quantity: int) -> Answer:
        """PUT."""
        return await self._ask(sku, "PUT", {"quantity": quantity})

    async def adjust(self, sku: str, delta: int) -> Answer:
        """POST of an adjustment."""
        return await self._ask(sku, "POST", {"delta": delta}, path="/adjustments")

    async def delete(self, sku: str) -> Answer:
        """DELETE."""
        return await self._ask(sku, "DELETE")

    def heard(self, answer: Http) -> None:
        """Is called with each answer as it came. May raise Refused."""

    async def close(self) -> None:
        """Closes the connection. The next call opens a new one, perhaps to another worker."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def port(self) -> int | None:
        """Port of our end of the connection, None without one: it identifies the worker at the other end."""
        return None if self._connection is None else self._connection.port

    async def _ask(self, sku: str, method: str, body: object = None, *, path: str = "") -> Answer:
        connection = self._connection
        if connection is None:
            try:
                connection = await _Connection.to(self._url)
            except ConnectionError as error:
                raise Refused from error
        self._connection = None
        try:
            answer = await connection.ask(f"/inventory/{sku}{path}", method=method, body=body)
        except BaseException as error:
            # After a timeout, too: on the same connection, the next call would read the answer to this one.
            await connection.close()
            if isinstance(error, HUNG_UP):
                raise Unknown from error
            raise
        self._connection = connection
        self.heard(answer)
        if answer.status == 204:
            return Answer(204)
        if answer.status not in (200, 201, 404, 409, 503):
            raise Broken(f"{method} {sku}{path}: {answer.status} {answer.body!r}")
        said = answer.json()
        if answer.status in (200, 201):
            version, _, epoch = answer.headers.get("etag", f'"{said["version"]}-"').strip('"').partition("-")
            assert (said["sku"], str(said["version"]), len(epoch) in (0, 16)) == (sku, version, True)
            return Answer(answer.status, said["quantity"], said["version"])
        if answer.status == 503:
            raise Unknown if said["type"] == "outcome-unknown" else Refused
        return Answer(answer.status, available=said.get("available"))


class _Connection(Keyed):
    """A connection that knows its port."""

    @property
    def port(self) -> int:
        return int(self._writer.get_extra_info("sockname")[1])

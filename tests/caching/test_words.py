"""What Redis says is shown without secrets and addresses."""

import socket

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from app.caching.errors import AnotherRun, NoPrimary
from app.caching.words import code, said, unavailable

DIGEST = "0123456789abcdef0123456789abcdef01234567"


def answered(answer: str) -> Exception:
    """Returns the exception that redis-py makes of an error answer."""
    error = BaseParser.parse_error(answer)  # type: ignore[no-untyped-call]
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("LOADING Redis is loading the dataset in memory", "LOADING Redis is loading the dataset in memory"),
        ("NOAUTH Authentication required.", "NOAUTH Authentication required"),
        (
            "MISCONF Errors writing to the AOF file: No space left on device",
            "MISCONF Errors writing to the AOF file: No space left on device",
        ),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'",
        ),
        ("ERR max number of clients reached", "ERR max number of clients reached"),
        (
            "NOPERM User guest has no permissions to run the 'info' command",
            "NOPERM this user has no permissions to run the 'info' command",
        ),
        (
            "NOPERM User guest has no permissions to access the 'users:{7}' key",
            "NOPERM this user has no permissions to access a key",
        ),
        (
            f"ERR Error running script (call to f_{DIGEST}): @user_script:9: @user_script: 9: "
            "The user executing the script can't run this command or subcommand. ",
            "NOPERM The user executing the script can't run this command or subcommand",
        ),
        (
            "ERR The user executing the script can't access at least one of the keys mentioned in the command "
            f"arguments script: {DIGEST}, on @user_script:9.",
            "NOPERM The user executing the script can't access at least one of the keys mentioned in the command "
            "arguments",
        ),
        (
            f"ERR ACL failure in script: User guest has no permissions to run the 'xadd' command script: {DIGEST}, on "
            "@user_script:9.",
            "NOPERM this user has no permissions to run the 'xadd' command",
        ),
        ("MOVED 3999 10.0.0.7:6381", "MOVED 3999 …"),
        ("MOVED 3999 [fe80::7]:6381", "MOVED 3999 …"),
        ("ASK 3999 FE80::7:6381", "ASK 3999 …"),
        ("MOVED 3999 :6381", "MOVED 3999 …"),  # From a node that does not know its own address.
        ("MOVED 3999 redis-1.shop.internal:7", "MOVED 3999 …"),
        ("ERR upstream 10.0.0.7 is away", "ERR upstream … is away"),  # From a proxy.
        ("ERR upstream ::1 is away", "ERR upstream … is away"),
        (
            f"ERR Error running script (call to f_{DIGEST}): @user_script:9: @user_script: 9: "
            "-OOM command not allowed when used memory > 'maxmemory'. ",
            "OOM command not allowed when used memory > 'maxmemory'",
        ),
        (
            f"READONLY You can't write against a read only replica. script: {DIGEST}, on @user_script:9.",
            "READONLY You can't write against a read only replica",
        ),
        (
            f"ERR Error running script (call to f_{DIGEST}): @user_script:12: Wrong number of args",
            "ERR Error running script (call to …): …: Wrong number of args",
        ),
        (
            "ERR unknown command `FOO`, with args beginning with: `hunter2`, ",
            "ERR unknown command `FOO`",
        ),
    ],
)
def test_an_error_answer_of_redis_is_quoted_without_secrets(answer: str, says: str) -> None:
    error = answered(answer)
    assert said(error) == f"says {says}"
    assert code(error) == says.split()[0]
    assert str(unavailable(error, "users")) == f"Redis answered with an error for users: {says}."


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 6379)"), "refuses connections"),
        (FileNotFoundError(2, "/secret/redis.sock"), "refuses connections"),
        (PermissionError(13, "/secret/redis.sock"), "is behind a socket that this process may not use"),
        (socket.gaierror(-2, "Name or service not known"), "is not found: its name does not resolve"),
        (TimeoutError(), "does not answer in time"),
        (ConnectionResetError(104, "10.0.0.7"), "has closed the connection"),
        (
            OSError("Multiple exceptions: [Errno 111] ('10.0.0.7', 6379), [Errno 111]"),
            "refuses connections",
        ),
        (OSError(113, "No route to 10.0.0.7"), "cannot be reached"),
    ],
)
def test_a_connection_error_is_described_without_an_address(cause: Exception, says: str) -> None:
    error = RedisConnectionError("Error connecting to 10.0.0.7:6379.")
    error.__cause__ = cause
    assert (said(error), code(error)) == (says, None)
    assert str(unavailable(error)) == f"Redis did not answer: it {says}."


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RedisTimeout("Timeout reading from /secret/redis.sock"), "does not answer in time"),
        (RedisConnectionError("Connection closed by server."), "has closed the connection"),
        (RedisConnectionError("Error 111 connecting to 10.0.0.7:6379. Connect call failed."), "refuses connections"),
        (RedisConnectionError("No connection available."), "is busy on all connections of this process"),
        (AnotherRun("Redis has restarted."), "has restarted or was replaced"),
        (NoPrimary("cannot be found, because no Sentinel answers"), "cannot be found, because no Sentinel answers"),
        (RedisConnectionError("Something about 10.0.0.7."), "cannot be asked (ConnectionError)"),
        (ResponseError("value is not an integer", status_code="ERR"), "says ERR value is not an integer"),
    ],
)
def test_an_error_of_the_client_is_described_without_an_address(error: Exception, says: str) -> None:
    assert said(error) == says


def test_the_code_of_a_wrapped_error_is_found() -> None:
    error = RedisConnectionError("wrapped")
    error.__cause__ = AuthenticationError("invalid username-password pair", status_code="WRONGPASS")
    assert code(error) == "WRONGPASS"


def test_without_an_error_there_is_no_code() -> None:
    assert code(None) is None

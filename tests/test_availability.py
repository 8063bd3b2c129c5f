"""The quoted errors of Postgres contain nothing that a client must not see."""

import socket

import asyncpg
import pytest

from app.availability import unavailability

TAKES_NONE = "The database takes no connection: "


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            asyncpg.InvalidPasswordError('password authentication failed for user "ada"'),
            f"{TAKES_NONE}password authentication failed for user.",
        ),
        (
            asyncpg.InvalidPasswordError("Passwort-Authentifizierung für Benutzer »ada« fehlgeschlagen"),
            f"{TAKES_NONE}Passwort-Authentifizierung für Benutzer fehlgeschlagen.",
        ),
        (
            asyncpg.InvalidAuthorizationSpecificationError(
                'no pg_hba.conf entry for host "10.0.0.7", user "ada", database "shop", no encryption'
            ),
            f"{TAKES_NONE}no pg_hba.conf entry for host, user, database, no encryption.",
        ),
        (asyncpg.InvalidCatalogNameError('database "shop" does not exist'), f"{TAKES_NONE}database does not exist."),
        (asyncpg.InvalidCatalogNameError("no such database: shop"), f"{TAKES_NONE}no such database."),
        (
            asyncpg.TooManyConnectionsError("sorry, too many clients already"),
            f"{TAKES_NONE}sorry, too many clients already.",
        ),
        (
            asyncpg.CannotConnectNowError("the database system is starting up"),
            "Postgres takes no connections: the database system is starting up.",
        ),
        (
            asyncpg.InsufficientPrivilegeError("permission denied for table users"),
            "The database does not do it: permission denied for table users.",
        ),
        # Errors of poolers and proxies, in their own words.
        (
            asyncpg.ConnectionFailureError("cannot connect to server db-1.shop.internal:5432: timeout"),
            "The database does not do it: cannot connect to server …: timeout.",
        ),
        (
            asyncpg.ConnectionFailureError("server 10.0.0.7 is down, and so is [fe80::7]:5432, and ::1"),
            "The database does not do it: server … is down, and so is …, and ….",
        ),
        (
            asyncpg.ConnectionFailureError("no server for host=10.0.0.7 port=5432 dbname=shop user=ada"),
            "The database does not do it: no server for ….",
        ),
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 5432)"), "The database refuses connections."),
        (FileNotFoundError(2, "/secret/.s.PGSQL.5432"), "The database refuses connections."),
        (PermissionError(13, "/secret"), "The database is behind a socket that this process may not use."),
        (socket.gaierror(-2, "nowhere"), "The database is not found: its name does not resolve."),
        (TimeoutError(), "The database does not answer in time."),
        (ConnectionResetError(104, "10.0.0.7"), "The database has closed the connection."),
        (OSError(113, "No route to 10.0.0.7"), "The database cannot be reached."),
        (asyncpg.InterfaceError("connection to 10.0.0.7 is closed"), "The connection to the database is broken."),
        (asyncpg.ExternalRoutineError("Out of order."), None),
        (ValueError("no error of Postgres"), None),
    ],
)
def test_the_reason_why_postgres_is_away_is_quoted_without_secrets(error: Exception, sentence: str | None) -> None:
    assert unavailability(error) == sentence

"""What each parameter of libpq may be here. libpq's documentation says what it means.

What can go wrong: `ValueError`, for a value that libpq would refuse as well, or that asyncpg cannot do; the sentence
says which.
"""

import re

from app.database_url.parameter import Parameters
from app.database_url.tls import FILES

CHOICES = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "gsslib": ("gssapi", "sspi"),
    "load_balance_hosts": ("disable", "random"),
    "sslcertmode": ("disable", "allow", "require"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
SWITCHES = ("gssdelegation", "keepalives", "requiressl", "sslcompression", "sslsni")
"""They are 0 or 1."""
NUMBERS = ("connect_timeout", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout")
IMPOSSIBLE = {
    "channel_binding": (
        {"require"},
        "asyncpg cannot bind a password to its TLS connection; leave it out, and write sslmode=verify-full and "
        "sslrootcert=system, which keep others from the connection, too",
    ),
    "gssencmode": ({"require"}, "asyncpg does not encrypt with GSSAPI; use TLS"),
    "gssdelegation": ({"1"}, "asyncpg does not delegate credentials"),
    "sslcertmode": (
        {"disable", "require"},
        "asyncpg sends the certificate in sslcert if the server asks; only allow is possible",
    ),
    "sslcompression": ({"1"}, "asyncpg does not compress"),
    "sslsni": ({"0"}, "asyncpg always names the server when TLS begins"),
}
"""Values of libpq that asyncpg cannot serve, and why."""
NEVER = {
    "replication": "the service needs an ordinary session",
    "require_auth": "asyncpg lets the server choose how to authenticate; restrict that in pg_hba.conf",
    "requirepeer": "asyncpg cannot ask who owns the socket",
    "sslcrldir": "asyncpg reads one file; name it in sslcrl",
}
"""Parameters that are not taken, and why. `replication` may be off, as it is by default."""
FREE = ("application_name", "fallback_application_name", "dbname", "host", "hostaddr", "krbsrvname", "options")
OTHERS = ("client_encoding", "passfile", "password", "port", "service", "sslpassword", "user")
KNOWN = frozenset(
    (
        *CHOICES,
        *SWITCHES,
        *NUMBERS,
        *NEVER,
        *FREE,
        *OTHERS,
        *FILES,
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
    )
)
"""All parameters of libpq 17."""
OFF = ("false", "off", "no", "0")
ENCODINGS = ("utf8", "utf-8", "unicode", "auto")
LARGEST = 2**31 - 1


def check_values(parameters: Parameters) -> None:
    """Raises ValueError for a value that is invalid or cannot be served."""
    for name, parameter in parameters.items():
        value = parameter.value
        if name in CHOICES and value not in CHOICES[name]:
            raise parameter.refused(f"it must be {listed(CHOICES[name])}")
        if name in SWITCHES and value not in ("0", "1"):
            raise parameter.refused("it must be 0 or 1")
        if name in NUMBERS and (not re.fullmatch(r"-?[0-9]{1,10}", value) or abs(int(value)) > LARGEST):
            raise parameter.refused("it must be a whole number")
        if name in IMPOSSIBLE and value in IMPOSSIBLE[name][0]:
            raise parameter.refused(IMPOSSIBLE[name][1])
        if name in NEVER and not (name == "replication" and value in OFF):
            raise parameter.refused(NEVER[name])
        if name == "client_encoding" and value.lower() not in ENCODINGS:
            raise parameter.refused("asyncpg speaks UTF8")


def listed(words: tuple[str, ...]) -> str:
    """Returns the words with commas, and an "or" before the last."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def whole(parameters: Parameters, name: str) -> int:
    """Returns a number, 0 if it is not given or negative: libpq takes that for the default."""
    parameter = parameters.get(name)
    return max(int(parameter.value), 0) if parameter else 0

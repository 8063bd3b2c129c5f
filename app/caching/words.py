"""Describes an error of Redis, or of the connection to it, in words that may be shown to anyone.

    said(error)           "refuses connections"; "says LOADING Redis is loading the dataset in memory"
    code(error)           "LOADING": the word by which Redis names its error
    unavailable(error)    the description as an exception to raise

Messages of redis-py name the server's address, and those of Redis name logins, keys and script digests. All of that is
removed. What can go wrong: an error of an unknown kind is described by its class alone.
"""

import re
import socket
import ssl
from collections.abc import Iterator

from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from .errors import AnotherRun, CacheUnavailable, NoPrimary

LONGEST = 200
SAYS = "says "
OF_ANOTHER_HOST = (62, 64)
"""OpenSSL's codes for a certificate that names neither this host (X509_V_ERR_HOSTNAME_MISMATCH) nor this address."""
IN_SCRIPT = re.compile(r".*(?:-|@user_script: ?\d+: )([A-Z]+ .*)")
"""The error of a command in a script, as Redis 6 reports it: `ERR Error running script (…): @user_script: 9: -OOM
command …`, or `@user_script:9: WRONGTYPE Operation …`."""
DENIED = re.compile(r".*(?:ACL failure in script: |(?=The user executing the script ))(.*?)(?: script: .*)?$")
"""A command in a script is not permitted. Redis reports it without the code of that error, from 7.2 on in new words."""
SECRETS = (
    (re.compile(r",? with args beginning with.*"), ""),
    (re.compile(r"\b[Uu]ser \S+ has no permissions"), "this user has no permissions"),
    (re.compile(r"\bthe '[^']*' (key|channel)"), r"a \1"),
    (re.compile(r"\b(?:f_)?[0-9a-f]{40}\b"), "…"),
    # Addresses, as in MOVED: with a port, which is alone if a node does not know its own name; IPv6; IPv4.
    (
        re.compile(r"\S*:\d{1,5}\b|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}|\b\d{1,3}(?:\.\d{1,3}){3}\b"),
        "…",
    ),
)


def said(error: BaseException) -> str:
    """Returns what Redis did or said to cause `error`: a clause without its subject, and without secrets."""
    told = (_answer(one) or _fate(one) for one in chain(error))
    return next((words for words in told if words is not None), f"cannot be asked ({type(error).__name__})")


def code(error: BaseException | None) -> str | None:
    """Returns the word by which Redis names the error that it answered, None if it answered none."""
    words = "" if error is None else said(error)
    return words.split()[1] if words.startswith(SAYS) else None


def unavailable(error: BaseException, asked: str = "") -> CacheUnavailable:
    """Returns the exception to raise from `error`. `asked` names what Redis was asked for."""
    asked = f" for {asked}" if asked else ""
    words = said(error)
    if words.startswith(SAYS):
        return CacheUnavailable(f"Redis answered with an error{asked}: {words.removeprefix(SAYS)}.")
    return CacheUnavailable(f"Redis did not answer{asked}: it {words}.")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and its causes: redis-py wraps system errors, and sometimes its own errors."""
    came_of: BaseException | None = error
    while came_of is not None:
        yield came_of
        came_of = came_of.__cause__ or came_of.__context__


def _answer(error: BaseException) -> str | None:
    """Returns the first sentence of an error that Redis answered, with its code."""
    status = getattr(error, "status_code", None)
    if not isinstance(error, ResponseError | AuthenticationError) and status is None:
        return None
    text = f"{status or ''} {error}".strip()
    text = IN_SCRIPT.sub(r"\1", text) if "script" in text else text
    text = DENIED.sub(r"NOPERM \1", text)
    if not re.match(r"[A-Z]{2,}\b", text):
        text = f"ERR {text}"
    text = re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]
    for secret, shown in SECRETS:
        text = secret.sub(shown, text)
    return f"{SAYS}{text[:LONGEST]}"


def _fate(error: BaseException) -> str | None:
    """Returns what the system or the client detected in place of an answer."""
    text = str(error)
    if isinstance(error, AnotherRun):
        return "has restarted or was replaced"
    if isinstance(error, NoPrimary):
        return text
    if text == "No connection available.":
        return "is busy on all connections of this process"
    if isinstance(error, socket.gaierror):
        return "is not found: its name does not resolve"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in OF_ANOTHER_HOST:
            return "has the certificate of another host"
        return "has a certificate that is not trusted"
    if isinstance(error, ssl.SSLError):
        return "does not speak TLS as this process does"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError) or re.search(r"\bErr(no|or) 111\b", text):
        return "refuses connections"
    if isinstance(error, PermissionError):
        return "is behind a socket that this process may not use"
    if isinstance(error, TimeoutError | RedisTimeout):
        return "does not answer in time"
    if isinstance(error, ConnectionError | EOFError) or "closed" in text.lower():
        return "has closed the connection"
    if isinstance(error, OSError):
        return "cannot be reached"
    return None  # Its cause may say more.

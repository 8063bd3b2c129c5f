"""Reads the parameters of a Redis URL that concern TLS, and loads the certificates that they name.

redis-py loads them when it connects. Then a missing file, or a key of another certificate, looks like a Redis that does
not answer.

What can go wrong: `ValueError`, a sentence that names the parameter and the file. It never contains a password.
"""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio.connection import AbstractConnection, SSLConnection

from .words import chain

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
FLAGS = ("ssl_include_verify_flags", "ssl_exclude_verify_flags")
TLS = (
    *FILES,
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_min_version",
    "ssl_ciphers",
    *FLAGS,
)
"""The parameters that only a rediss:// URL may have."""
REQUIREMENTS = ("none", "optional", "required")
YES_OR_NO = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
VERSIONS = {name.lower(): ssl.TLSVersion[name] for name in ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3")}


def tls_arguments(parameters: Mapping[str, str], name: str, *, shows: bool = True) -> dict[str, Any]:
    """Returns the arguments for redis-py's SSLConnection. Its sentences call the URL `name`, and quote its parameters
    only if it `shows` them: what looks like a parameter may be a part of a password. Raises ValueError."""

    def refused(parameter: str, rule: str) -> ValueError:
        told = f"is {parameters[parameter]!r}" if shows else "cannot be used"
        return ValueError(f"The {parameter} in {name} {told}: {rule}.")

    arguments: dict[str, Any] = dict(parameters)
    if "ssl_cert_reqs" in parameters:
        required = parameters["ssl_cert_reqs"].lower().removeprefix("ssl.").removeprefix("cert_")
        if required not in REQUIREMENTS:
            raise refused("ssl_cert_reqs", "it must be none, optional or required")
        arguments["ssl_cert_reqs"] = required
    if "ssl_check_hostname" in parameters:
        checks = YES_OR_NO.get(parameters["ssl_check_hostname"].lower())
        if checks is None:
            raise refused("ssl_check_hostname", "it must be true or false")
        if checks and arguments.get("ssl_cert_reqs") == "none":
            raise refused("ssl_check_hostname", "with ssl_cert_reqs=none, no host is checked")
        arguments["ssl_check_hostname"] = checks
    if "ssl_min_version" in parameters:
        arguments["ssl_min_version"] = _version(parameters["ssl_min_version"])
        if arguments["ssl_min_version"] is None:
            raise refused("ssl_min_version", "it must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")
    for parameter in FLAGS:
        if parameter in parameters:
            flags = re.findall(r"\w+", parameters[parameter])
            if not all(flag in ssl.VerifyFlags.__members__ for flag in flags):
                raise refused(parameter, f"it must be any of {', '.join(ssl.VerifyFlags.__members__)}")
            arguments[parameter] = [ssl.VerifyFlags[flag] for flag in flags]
    for parameter in FILES:
        if parameter in parameters and not Path(parameters[parameter]).is_file():
            raise refused(parameter, "there is no such file")
    if "ssl_ca_path" in parameters and not Path(parameters["ssl_ca_path"]).is_dir():
        raise refused("ssl_ca_path", "there is no such directory")
    if "ssl_keyfile" in parameters and "ssl_certfile" not in parameters:
        raise refused("ssl_keyfile", "its certificate is missing, which ssl_certfile names")
    _load(parameters, name, shows=shows)
    return arguments


def load_again(connection: AbstractConnection, error: Exception) -> None:
    """Makes the next attempt to connect load the certificates anew if this one failed because of TLS: they may have
    been replaced. To load them takes milliseconds, in which nothing else is done: too long for each attempt."""
    if isinstance(connection, SSLConnection) and any(isinstance(each, ssl.SSLError) for each in chain(error)):
        connection.ssl_context.context = None


def _version(text: str) -> ssl.TLSVersion | None:
    if text.isdecimal() and int(text) in VERSIONS.values():
        return ssl.TLSVersion(int(text))
    return VERSIONS.get(text.lower().replace(".", "_"))


def _load(parameters: Mapping[str, str], name: str, *, shows: bool) -> None:
    """Loads what the parameters name, as redis-py will."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    parameter = ""
    try:
        for parameter, argument in (("ssl_ca_certs", "cafile"), ("ssl_ca_path", "capath"), ("ssl_ca_data", "cadata")):
            if parameter in parameters:
                context.load_verify_locations(**{argument: parameters[parameter]})
        if (parameter := "ssl_certfile") in parameters:
            # Without a password, OpenSSL would ask for it at the terminal.
            password = parameters.get("ssl_password", "")
            context.load_cert_chain(parameters[parameter], parameters.get("ssl_keyfile"), password)
        if (parameter := "ssl_ciphers") in parameters:
            context.set_ciphers(parameters[parameter])
    except (OSError, ValueError) as error:  # OSError includes what OpenSSL reports.
        why = getattr(error, "reason", None) or str(error.args[-1]).rstrip(".")
        shown = f" ({parameters[parameter]!r})" if shows and parameter != "ssl_ca_data" else ""
        raise ValueError(f"The {parameter} in {name}{shown} cannot be loaded: {why}.") from None

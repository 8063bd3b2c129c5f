"""The parameters that concern TLS, checked before anything connects.

What can go wrong: `ValueError`, a sentence that names the parameter and the file. It never contains a password.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.database_url.parameter import Parameter, Parameters

FILES = ("sslrootcert", "sslcrl", "sslcert", "sslkey")
VERIFIES = ("verify-ca", "verify-full")
DIRECT = ("require", *VERIFIES)
VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


def read_tls(parameters: Parameters) -> dict[str, str]:
    """Returns the parameters of TLS as asyncpg takes them. Raises ValueError."""
    found = {name: parameter.value for name, parameter in parameters.items() if name in FILES}
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if parameter := parameters.get(name):
            names = {version.lower(): version for version in VERSIONS}
            if parameter.value.lower() not in names:
                raise parameter.refused(f"it must be {', '.join(VERSIONS[:-1])} or {VERSIONS[-1]}")
            found[name] = names[parameter.value.lower()]
    if found.get("ssl_min_protocol_version", "") > found.get("ssl_max_protocol_version", "TLSv9"):
        raise parameters["ssl_min_protocol_version"].refused("it is later than ssl_max_protocol_version")
    mode = parameters.get("sslmode", Parameter("sslmode", "prefer", ""))
    root, negotiation = parameters.get("sslrootcert"), parameters.get("sslnegotiation")
    if root and root.value == "system":
        if "sslmode" in parameters and mode.value != "verify-full":
            raise mode.refused("with sslrootcert=system it must be verify-full")
        if (system := ssl.get_default_verify_paths().cafile) is None:
            raise root.refused("this Python knows no file of the system's certificates; name one")
        found |= {"sslrootcert": system, "sslmode": "verify-full"}
    if negotiation and negotiation.value == "direct" and found.get("sslmode", mode.value) not in DIRECT:
        raise negotiation.refused(f"it needs sslmode={', '.join(DIRECT[:-1])} or {DIRECT[-1]}")
    return found


def check_tls(parameters: Parameters) -> None:
    """Loads the certificates that the parameters name. Raises ValueError."""
    for name in FILES:
        if (file := parameters.get(name)) and file.value != "system" and not Path(file.value).is_file():
            raise file.refused("there is no such file")
    mode = parameters.get("sslmode")
    if mode and mode.value in VERIFIES and "sslrootcert" not in parameters:
        default = Path.home() / ".postgresql" / "root.crt"
        if not default.is_file():
            raise mode.refused(f"it needs an authority to trust: name its file in sslrootcert, as {default} is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl"):
        if (file := parameters.get(name)) and file.value != "system":
            with _loading(file):
                context.load_verify_locations(file.value)
    if certificate := parameters.get("sslcert"):
        key, password = parameters.get("sslkey"), parameters.get("sslpassword")
        with _loading(certificate):
            # Without a password, OpenSSL would ask for it at the terminal.
            context.load_cert_chain(certificate.value, key.value if key else None, password.value if password else "")


@contextmanager
def _loading(file: Parameter) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # OSError includes what OpenSSL reports.
        why = getattr(error, "reason", None) or str(error.args[-1]).rstrip(".")
        raise file.refused(f"it cannot be loaded ({why})") from None

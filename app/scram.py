"""What Postgres stores of a password (SCRAM-SHA-256, RFC 5803).

Sent in place of the password, it keeps the password out of the server's log and out of its statistics.
"""

import hmac
import secrets
from base64 import b64encode
from hashlib import pbkdf2_hmac, sha256

ROUNDS = 4096
"""As many as Postgres itself takes by default. Each log-in costs the client as many."""


def verifier(password: str) -> str:
    """Returns the verifier of a password in ASCII. (Others would have to be normalised first, by SASLprep.)"""
    salt = secrets.token_bytes(16)
    salted = pbkdf2_hmac("sha256", password.encode("ascii"), salt, ROUNDS)
    client, server = (hmac.digest(salted, key, "sha256") for key in (b"Client Key", b"Server Key"))
    encoded = (b64encode(each).decode() for each in (salt, sha256(client).digest(), server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ROUNDS, *encoded)

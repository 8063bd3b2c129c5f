"""Certificates for servers and clients that speak TLS, made by the `openssl` program."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

PASSWORD = "opensesame"  # Of the encrypted key.


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority, and what it has signed: a certificate for 127.0.0.1 and localhost, and one for a client."""

    directory: Path

    @classmethod
    def made(cls, directory: Path) -> Self:
        """Makes them in this directory. The test is skipped where there is no `openssl` program."""
        if shutil.which("openssl") is None:
            pytest.skip("There is no openssl program to make certificates.")
        made = cls(directory)
        # Python's own checks are strict: an authority must say what its key is for.
        made._request("ca", "/CN=authority", "keyUsage=critical,keyCertSign,cRLSign")
        made._sign("server", "DNS:localhost,IP:127.0.0.1")
        made._sign("elsewhere", "DNS:elsewhere.example")
        made._sign("client", "DNS:client")
        made._openssl("pkey", "-aes256", "-passout", f"pass:{PASSWORD}", "-in", "client.key", "-out", "locked.key")
        return made

    def path(self, name: str) -> Path:
        """Returns the path of a file: ca.crt, server.crt, server.key, elsewhere.crt, client.crt, locked.key, …"""
        return self.directory / name

    def _sign(self, name: str, names: str) -> None:
        extensions = (f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE")
        self._request(name, f"/CN={name}", *extensions, by=("-CA", "ca.crt", "-CAkey", "ca.key"))

    def _request(self, name: str, subject: str, *extensions: str, by: tuple[str, ...] = ()) -> None:
        added = [word for extension in extensions for word in ("-addext", extension)]
        files = ("-keyout", f"{name}.key", "-out", f"{name}.crt")
        # An RSA key would take a hundred times as long.
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
        self._openssl("req", "-x509", *key, "-days", "2", "-subj", subject, *added, *by, *files)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

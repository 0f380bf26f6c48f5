"""A certificate authority for one control plane, by the openssl program."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

_DAYS = "3650"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc,IP:10.97.0.1"


class Authority:
    """A CA in a folder; its certificates are for servers and for clients alike."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate, self._key = self._paths("ca")
        subject = ["-x509", "-days", _DAYS, "-subj", "/CN=tests"]
        _openssl("req", *_NEW_KEY, *subject, "-keyout", self._key, "-out", self.certificate)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self._folder / f"{name}.crt", self._folder / f"{name}.key"

    def issue(
        self, name: str, organization: str = "", addresses: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Return certificate and key of a user in the given group, or of a server on the loopback
        address and the given ones."""
        certificate, key = self._paths(name.replace(":", "-"))
        subject = f"/O={organization}/CN={name}" if organization else f"/CN={name}"
        request, names = key.with_suffix(".csr"), key.with_suffix(".names")
        names.write_text("".join([_NAMES, *(f",IP:{address}" for address in addresses)]))
        _openssl("req", *_NEW_KEY, "-subj", subject, "-keyout", key, "-out", request)
        authority: list[str | Path] = [
            "-CA",
            self.certificate,
            "-CAkey",
            self._key,
            "-CAcreateserial",
        ]
        signed: list[str | Path] = ["-days", _DAYS, "-extfile", names, "-out", certificate]
        _openssl("x509", "-req", "-in", request, *authority, *signed)
        return certificate, key

    def signing_key(self) -> tuple[Path, Path]:
        """Return public and private key for the tokens of service accounts."""
        public, private = self._folder / "tokens.pub", self._folder / "tokens.key"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
        _openssl("ec", "-in", private, "-pubout", "-out", public)
        return public, private

    def client_context(self) -> ssl.SSLContext:
        """Return TLS settings that trust this authority alone."""
        return ssl.create_default_context(cafile=self.certificate)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

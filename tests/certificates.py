"""Certificates for tests, made by the openssl command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate for localhost that signs itself, and its key."""

    certificate: Path
    key: Path


def make_certificate(folder: Path, name: str = "server") -> CertificateFiles:
    files = CertificateFiles(folder / f"{name}.pem", folder / f"{name}.key")
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(files.key), "-out", str(files.certificate)),
    )
    return files


def openssl(*arguments: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: apt-get install openssl")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

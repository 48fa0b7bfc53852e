"""HTTPS: real handshakes, those that never end, and files that cannot be used."""

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from panacea.api.connections.tls import tls_context
from panacea.config import Limits
from panacea_client import NetworkError, Panacea
from tests.api.chatting import CHAT, body
from tests.api.fake_engine import FakeEngine
from tests.api.serving import DEFAULT_LIMITS, Served, serving, wait_until
from tests.certificates import CertificateFiles, make_certificate, openssl
from tests.command import run_panacea
from tests.golden_files import BASE
from tests.test_drain import SLOW_ENGINE


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificate(tmp_path_factory.mktemp("certificates"))


async def make_engine() -> FakeEngine:
    return FakeEngine()


@contextmanager
def https(files: CertificateFiles, limits: Limits = DEFAULT_LIMITS) -> Generator[tuple[Served, httpx2.Client]]:
    context = tls_context(files.certificate, files.key)
    with serving(make_engine, limits=limits, tls=context) as served:
        verify = ssl.create_default_context(cafile=files.certificate)
        with httpx2.Client(base_url=f"https://localhost:{served.port}", verify=verify, timeout=20) as client:
            yield served, client


def test_answers_and_streams_are_as_without_tls(files: CertificateFiles) -> None:
    with https(files) as (_, client):
        for _ in range(2):
            assert client.post(CHAT, json=body(max_tokens=5)).status_code == 200
        with client.stream("POST", CHAT, json=body(stream=True, max_tokens=5)) as stream:
            assert list(stream.iter_lines())[-2] == "data: [DONE]"
        huge = client.post(CHAT, json=body(stop="x" * (5 << 20)))
        assert (huge.status_code, huge.json()["error"]["code"]) == (413, "body_too_large")


def test_a_request_that_arrives_with_the_end_of_the_handshake_is_answered(files: CertificateFiles) -> None:
    context = ssl.create_default_context(cafile=files.certificate)
    with https(files) as (served, _), socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        client.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        raw.sendall(outgoing.read())  # the client's last handshake message, and the request
        answer = b""
        while b'{"status":"ok"}' not in answer:
            received = raw.recv(65536)
            assert received, answer
            incoming.write(received)
            with suppress(ssl.SSLWantReadError):
                while piece := client.read():
                    answer += piece


def test_a_client_must_know_the_certificate_and_tls_1_2(files: CertificateFiles) -> None:
    context = tls_context(files.certificate, files.key)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    with https(files) as (served, client):
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            httpx2.get(f"https://localhost:{served.port}/health")
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "data", [b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\x16\x03\x01\x00", b"\0" * 9000]
)
def test_what_is_not_tls_harms_nobody(data: bytes, files: CertificateFiles) -> None:
    with https(files, replace(DEFAULT_LIMITS, head_timeout_s=0.5)) as (served, client):
        with socket.create_connection(("127.0.0.1", served.port), 10) as plain, suppress(ConnectionError):
            plain.sendall(data)
            assert b"HTTP" not in plain.recv(1000)
            while plain.recv(1000):
                pass
        assert client.get("/health").status_code == 200


def test_a_handshake_that_never_ends_is_closed_after_the_heads_time(files: CertificateFiles) -> None:
    with https(files, replace(DEFAULT_LIMITS, head_timeout_s=0.5)) as (served, _):
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", served.port), 20) as silent, suppress(ConnectionError):
            assert silent.recv(1000) == b""
        assert time.monotonic() - begin >= 0.5
        wait_until(lambda: len(served.server.config.crowd) == 0)


def test_silent_handshakes_lock_nobody_out(files: CertificateFiles) -> None:
    limits = replace(DEFAULT_LIMITS, max_connections=20, max_peer_connections=10)
    with https(files, limits) as (served, client), ExitStack() as held:
        for _ in range(100):
            held.enter_context(socket.create_connection(("127.0.0.1", served.port), 10))
        begin = time.monotonic()
        assert client.get("/ready").status_code == 200
        assert time.monotonic() - begin < 5
        assert len(served.server.config.crowd) <= 12


def test_connections_are_forgotten_when_they_end(files: CertificateFiles) -> None:
    with https(files) as (served, client):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", served.port), 10):
                pass
        assert client.get("/health").status_code == 200
        client.close()
        wait_until(lambda: len(served.server.config.crowd) == 0)
        wait_until(lambda: not served.server.server_state.connections)


def wrong_files(folder: Path) -> dict[str, tuple[list[str], str]]:
    good, other = make_certificate(folder), make_certificate(folder, "other")
    openssl("pkey", "-in", str(good.key), "-out", str(folder / "locked.key"), "-aes128", "-passout", "pass:secret")
    (folder / "text").write_text("no certificate", "utf-8")
    (folder / "empty").write_bytes(b"")

    def options(certificate: Path, key: Path) -> list[str]:
        return ["--tls-certificate", str(certificate), "--tls-key", str(key)]

    return {
        "certificate alone": (["--tls-certificate", str(good.certificate)], "belong together"),
        "key alone": (["--tls-key", str(good.key)], "belong together"),
        "no certificate": (options(folder / "none", good.key), "--tls-certificate"),
        "no key": (options(good.certificate, folder / "none"), "cannot be read: no such file or directory"),
        "a folder": (options(folder, good.key), "cannot be read: is a directory"),
        "text for a certificate": (options(folder / "text", good.key), "is not a PEM certificate"),
        "a key for a certificate": (options(good.key, good.key), "is not a PEM certificate"),
        "text for a key": (options(good.certificate, folder / "text"), "is not a PEM private key"),
        "nothing for a key": (options(good.certificate, folder / "empty"), "is not a PEM private key"),
        "another's key": (options(good.certificate, other.key), "is not the key of --tls-certificate"),
        "a key with a password": (options(good.certificate, folder / "locked.key"), "is encrypted"),
    }


def test_wrong_files_are_one_line_each_before_the_model_is_loaded(tmp_path: Path) -> None:
    for case, (arguments, message) in wrong_files(tmp_path).items():
        done = run_panacea("serve", "--model", str(BASE), "--port", "0", *arguments)
        assert done.code == 2, case
        (line,) = done.err.splitlines()
        assert line.startswith("panacea: error: --tls-"), case
        assert message in line, case


@pytest.mark.slow
def test_a_real_server_announces_https_and_the_python_client_and_the_health_check_reach_it(
    files: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    command = [*SLOW_ENGINE, "serve", "--model", str(BASE), "--port", "0", "--probe-port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if line.startswith("Panacea serves "))
        probe_url = next(line.split()[1] for line in process.stderr if line.startswith("Probes: "))
        assert url.startswith("https://127.0.0.1:")
        with Panacea(url, verify=ssl.create_default_context(cafile=files.certificate)) as client:
            assert client.ready()
        monkeypatch.setenv("SSL_CERT_FILE", str(files.certificate))
        with Panacea(url) as client:
            assert client.ready()
        monkeypatch.delenv("SSL_CERT_FILE")
        with Panacea(url, max_retries=0) as client, pytest.raises(NetworkError, match="certificate verify failed"):
            client.ready()
        port, probe_port = url.rpartition(":")[2], probe_url.removesuffix("/health").rpartition(":")[2]
        for variables in (
            {"PANACEA_PORT": port, "PANACEA_TLS_CERTIFICATE": str(files.certificate)},
            {"PANACEA_PORT": "1", "PANACEA_PROBE_PORT": probe_port},
        ):
            check = subprocess.run(
                [sys.executable, "docker/health_check.py"],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (check.returncode, check.stderr) == (0, "")
    finally:
        process.terminate()
        process.communicate()

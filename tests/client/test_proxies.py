"""Proxies of the Python client: real ones, dead ones, and settings that cannot be used."""

import gc
import socket
import socketserver
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import cast

import pytest

from panacea_client import NetworkError, ProxyError, SettingsError, StatusError
from tests.api.serving import Served
from tests.client.either import MakeClient
from tests.client.hostile import hostile

SECRET = "hunter2"
ELSEWHERE = "http://panacea.invalid"

pytestmark = [
    pytest.mark.usefixtures("no_variables", "unclosed_sockets"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def unclosed_sockets() -> Generator[None]:
    """httpx2 leaves a socket open when a SOCKS proxy refuses; it must be collected where the warning is ignored."""
    yield
    gc.collect()


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class _Relay(socketserver.BaseRequestHandler):
    """CONNECT and SOCKS5 with a password, whatever host is asked for, always to one server."""

    @property
    def proxy(self) -> "_Proxy":
        return cast(_Proxy, self.server)

    def handle(self) -> None:
        first = self.request.recv(1, socket.MSG_PEEK)
        if first == b"\x05":
            self._greet_socks()
        else:
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.request.recv(4096)
            self.proxy.seen.append(head.decode())
            self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        self._copy()

    def _greet_socks(self) -> None:
        _, count = self.request.recv(2)
        self.request.recv(count)
        self.request.sendall(b"\x05\x02")  # a name and a password, please
        _, length = self.request.recv(2)
        name = self.request.recv(length)
        password = self.request.recv(self.request.recv(1)[0])
        self.proxy.seen.append(f"{name.decode()}:{password.decode()}")
        self.request.sendall(b"\x01\x00")
        self.request.recv(300)
        self.request.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    def _copy(self) -> None:
        with socket.create_connection(("127.0.0.1", self.proxy.target)) as target:

            def back() -> None:
                with suppress(OSError):
                    while data := target.recv(4096):
                        self.request.sendall(data)

            thread = threading.Thread(target=back)
            thread.start()
            with suppress(OSError):
                while data := self.request.recv(4096):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            thread.join()


class _Impostor(socketserver.BaseRequestHandler):
    """Reads something, sends a reply, and hangs up."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(cast(_Impostors, self.server).reply)


class _Impostors(socketserver.ThreadingTCPServer):
    daemon_threads = True
    reply: bytes


@contextmanager
def impostor(reply: bytes) -> Generator[str]:
    """The address of a server that answers whatever it is sent with `reply`."""
    with _Impostors(("127.0.0.1", 0), _Impostor) as server:
        server.reply = reply
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    target: int
    seen: list[str]


@contextmanager
def relay(target: int) -> Generator[_Proxy]:
    with _Proxy(("127.0.0.1", 0), _Relay) as proxy:
        proxy.target, proxy.seen = target, []
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_is_gone_through(scheme: str, make_client: MakeClient, server: Served) -> None:
    with relay(server.port) as proxy:
        url = f"{scheme}://someone:{SECRET}@127.0.0.1:{proxy.server_address[1]}"
        # An address, because the server answers local names alone, and "socks5" resolves names here.
        assert make_client("http://127.0.0.1:1", proxy=url).ready()
        assert proxy.seen == [f"someone:{SECRET}"]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_dead_proxy_of_the_environment_is_named_without_its_password(
    variable: str, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = dead_port()
    monkeypatch.setenv(variable, f"http://someone:{SECRET}@127.0.0.1:{port}")
    with pytest.raises(ProxyError, match=rf"the proxy http://127\.0\.0\.1:{port}: ") as caught:
        make_client(ELSEWHERE, max_retries=0).models()
    assert isinstance(caught.value, NetworkError)
    assert variable.upper() in str(caught.value)
    assert "NO_PROXY" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__dict__)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("server_scheme", ["http", "https"])
def test_a_dead_proxy_of_the_argument_is_named(scheme: str, server_scheme: str, make_client: MakeClient) -> None:
    port = dead_port()
    client = make_client(
        f"{server_scheme}://127.0.0.1:1", max_retries=0, proxy=f"{scheme}://u:{SECRET}@127.0.0.1:{port}"
    )
    with pytest.raises(ProxyError, match=rf"the proxy {scheme}://127\.0\.0\.1:{port}: ") as caught:
        client.models()
    assert SECRET not in str(caught.value)
    with pytest.raises(ProxyError), client.stream("Hello?") as stream:
        next(iter(stream))


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 403 No\r\n\r\n",
        b"\x05\xff",
    ],
)
def test_a_proxy_that_refuses_to_connect_is_named(reply: bytes, make_client: MakeClient) -> None:
    with impostor(reply) as address:
        scheme = "socks5" if reply[0] == 5 else "http"
        url = f"{scheme}://u:{SECRET}@{address}"
        with pytest.raises(ProxyError, match=address) as caught:
            make_client("https://127.0.0.1:1", max_retries=0, proxy=url).models()
    assert SECRET not in str(caught.value)


def test_a_proxy_that_wants_a_password_for_plain_http_is_named(make_client: MakeClient) -> None:
    with hostile([b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"]) as proxy:
        with pytest.raises(ProxyError, match="asks for a user name and password; put them into the argument proxy"):
            make_client(ELSEWHERE, proxy=proxy.url).models()
        assert len(proxy.requests) == 1, "asking again does not help"


def test_a_proxys_own_error_page_is_told_as_perhaps_its_own(make_client: MakeClient) -> None:
    with hostile([b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"]) as proxy:
        client = make_client(ELSEWHERE, proxy=proxy.url, max_retries=0)
        with pytest.raises(StatusError, match=f"or the proxy {proxy.url}, answered Bad Gateway"):
            client.models()


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x05", b"\x04\x00", b"\x00" * 9, b"\x05\x00" + b"\xff" * 20]
)
def test_what_is_no_socks_proxy_is_named(reply: bytes, make_client: MakeClient) -> None:
    with impostor(reply) as address:
        url = f"socks5://{address}"
        with pytest.raises(NetworkError, match=f"the proxy {url}"):
            make_client("http://127.0.0.1:1", max_retries=0, proxy=url, timeout=2).models()


@pytest.mark.parametrize("exception", ["127.0.0.1", "*", "other.example, 127.0.0.1", "127.0.0.1:{port}"])
def test_no_proxy_holds(
    exception: str, make_client: MakeClient, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("NO_PROXY", exception.format(port=server.port))
    assert make_client(server.url, max_retries=0).ready()


@pytest.mark.parametrize(
    ("host", "exception", "goes_through"),
    [
        ("api.corp.example", "corp.example", False),
        ("api.corp.example", ".corp.example", False),
        ("notcorp.example", "corp.example", True),
        ("[::1]:1", "::1", False),
        ("api.corp.example:81", "api.corp.example:82", True),
    ],
)
def test_no_proxy_means_hosts_and_their_subdomains(
    host: str, exception: str, goes_through: bool, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{dead_port()}")
    monkeypatch.setenv("NO_PROXY", exception)
    with pytest.raises(NetworkError) as caught:
        make_client(f"http://{host}", max_retries=0, timeout=5).models()
    assert isinstance(caught.value, ProxyError) is goes_through


def test_the_argument_wins_over_no_proxy(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(ProxyError):
        make_client("http://127.0.0.1:1", max_retries=0, proxy=f"http://127.0.0.1:{dead_port()}").models()


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY"])
@pytest.mark.parametrize(
    "url",
    [f"http://u:{SECRET}@[::1:9", f"ftp://u:{SECRET}@h:1", f"socks4://u:{SECRET}@h:1", f"http://u:{SECRET}@h:99999",
     f"http://u:{SECRET}@h:x", f"http://u:{SECRET}@", "http://"],
)  # fmt: skip
def test_a_malformed_proxy_of_the_environment_is_a_settings_error(
    variable: str, url: str, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url)
    with pytest.raises(SettingsError, match=f"{variable} must be a URL such as http://localhost:3128") as caught:
        make_client(ELSEWHERE)
    assert SECRET not in str(caught.value)


def test_socks_without_its_package_is_a_settings_error_that_says_what_to_install(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for options, variable in (({"proxy": f"socks5://u:{SECRET}@h:1"}, None), ({}, f"socks5h://u:{SECRET}@h:1")):
        if variable is not None:
            monkeypatch.setenv("ALL_PROXY", variable)
        with pytest.raises(
            SettingsError, match=r"needs another package; run: pip install 'panacea-client\[socks\]'"
        ) as caught:
            make_client(ELSEWHERE, **options)
        assert SECRET not in str(caught.value)

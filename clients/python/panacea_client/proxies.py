"""The proxy through which a client reaches its server, from an argument or the environment."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.request import getproxies, proxy_bypass

import httpx2

from panacea_client.errors import SettingsError

_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class ServerProxy:
    """A proxy whose URL is valid."""

    url: str = field(repr=False)
    """With the user name and password, if there are any."""
    name: str
    """The URL without them, for errors."""
    source: str
    """What to change: the argument or a variable."""


def proxy_of(base_url: str, given: str | None) -> ServerProxy | None:
    """The proxy for a server. `given` is the argument; None takes the environment's, as curl does.

    Raises `SettingsError` for a proxy that cannot be used. No error repeats its password.
    """
    if given is not None:
        return _checked(given, "the argument proxy")
    server = httpx2.URL(base_url)
    found = getproxies()
    host = server.host
    if "*" in found.get("no", "") or proxy_bypass(host) or proxy_bypass(f"{host}:{server.port}"):
        return None
    for kind in (server.scheme, "all"):
        if url := found.get(kind):
            return _checked(url if "://" in url else f"http://{url}", f"{kind.upper()}_PROXY")
    return None


def socks_errors() -> tuple[type[Exception], ...]:
    """What httpx2 lets through when a SOCKS proxy's reply makes no sense. Nothing without the package."""
    try:
        from socksio.exceptions import SOCKSError  # noqa: PLC0415 (it comes with an extra)
    except ImportError:
        return ()
    return (SOCKSError,)


def _checked(url: str, source: str) -> ServerProxy:
    try:
        parsed = httpx2.URL(url.strip())
        port = parsed.port
    except (ValueError, httpx2.InvalidURL):
        parsed, port = httpx2.URL(""), None
    if not parsed.host or parsed.scheme not in _SCHEMES or (port is not None and not 0 < port < 65536):
        message = f"{source} must be a URL such as http://localhost:3128; it may begin with {', '.join(_SCHEMES)}"
        raise SettingsError(message)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    name = f"{parsed.scheme}://{host}" + (f":{port}" if port else "")
    if parsed.scheme.startswith("socks") and find_spec("socksio") is None:
        message = f"the proxy {name} ({source}) needs another package; run: pip install 'panacea-client[socks]'"
        raise SettingsError(message)
    return ServerProxy(url.strip(), name, source)

"""The client's settings: the server's URL, the API key, timeouts, retries, headers, certificates, proxy."""

import math
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from panacea_client.errors import SettingsError
from panacea_client.proxies import ServerProxy, proxy_of

DEFAULT_BASE_URL = "http://localhost:8000"
DEFAULT_TIMEOUT_S = 600.0
"""An answer that does not stream arrives all at once. A long answer after a long queue takes minutes."""
DEFAULT_RETRIES = 2
_CONNECT_TIMEOUT_S = 10.0
"""A running server accepts a connection within milliseconds, so a longer wait would not help."""
# h11 would reject other headers too, but its error would contain them.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f]*")


@dataclass(frozen=True)
class ClientSettings:
    """The settings of both clients. `ClientSettings.of` checks the user's arguments."""

    base_url: str
    """The URL without `/v1` and without a trailing slash."""
    api_key: str | None = field(repr=False)
    timeout_s: float
    max_retries: int
    headers: Mapping[str, str] = field(repr=False)
    verify: ssl.SSLContext | bool
    proxy: ServerProxy | None

    @classmethod
    def of(
        cls,
        base_url: str | None,
        api_key: str | None,
        timeout: float,
        max_retries: int,
        headers: Mapping[str, str] | None,
        verify: ssl.SSLContext | bool,
        proxy: str | None,
    ) -> "ClientSettings":
        """Checked settings. A missing URL or key is read from the environment. Raises `SettingsError`."""
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise SettingsError("max_retries must be an integer of at least 0")
        checked_url = _base_url(base_url or os.environ.get("PANACEA_BASE_URL") or DEFAULT_BASE_URL)
        return cls(
            base_url=checked_url,
            api_key=_api_key(api_key or os.environ.get("PANACEA_API_KEY") or ""),
            timeout_s=checked_timeout_s(timeout),
            max_retries=max_retries,
            headers=_headers(headers or {}),
            # Created once, because it takes 30 ms and each comparison opens its own connections.
            verify=httpx2.create_ssl_context() if verify is True else verify,
            proxy=proxy_of(checked_url, proxy),
        )

    def http_options(self) -> dict[str, Any]:
        """Arguments of httpx2's clients, blocking and asynchronous."""
        # The caller limits the number of concurrent requests, so the connection pool does not.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
        return {
            "verify": self.verify,
            "proxy": None if self.proxy is None else self.proxy.url,
            "trust_env": False,  # `proxy_of` and `create_ssl_context` have read the environment
            "limits": limits,
            "follow_redirects": False,
        }


def timeouts(timeout_s: float) -> dict[str, float | None]:
    """httpx2's four timeouts. Each applies between two bytes, not to the whole request."""
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S), pool=None).as_dict()


def checked_timeout_s(timeout: float) -> float:
    """`timeout` unchanged. Raises `SettingsError` unless it is a number of seconds above 0."""
    if isinstance(timeout, bool) or not 0 < timeout < math.inf:
        raise SettingsError("timeout must be a number of seconds above 0")
    return timeout


def _base_url(given: str) -> str:
    problem = _problem_of(given.strip())
    if problem:
        raise SettingsError(f"base_url (or PANACEA_BASE_URL) {problem}; use a URL such as {DEFAULT_BASE_URL}")
    return given.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def _problem_of(given: str) -> str | None:
    """What is wrong with a URL. The text never repeats the URL, because it may contain a password."""
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL as error:
        return f"is not a valid URL ({error})" if "@" not in given else "is not a valid URL"
    if url.scheme not in {"http", "https"}:
        return "must begin with http:// or https://"
    if not url.host:
        return "has no host name"
    if url.userinfo:
        return "contains a user name or password; pass the server's key as api_key"
    if url.query or url.fragment:
        return "must end before any ? or #"
    return None


def _api_key(given: str) -> str | None:
    key = given.strip()
    if not _HEADER_VALUE.fullmatch(key) or " " in key:
        raise SettingsError("api_key (or PANACEA_API_KEY) contains spaces or control characters")
    return key or None


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise SettingsError("headers: a name is not a valid header name")
        if not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(f"headers: the value of {name} contains control characters")
    return {name.lower(): value for name, value in given.items()}

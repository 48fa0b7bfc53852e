"""Where the server is and how it is asked."""

import math
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from panacea_client.errors import SettingsError

DEFAULT_BASE_URL = "http://localhost:8000"
DEFAULT_TIMEOUT_S = 600.0
"""An answer that does not stream comes all at once, and a long one behind a queue takes minutes."""
DEFAULT_RETRIES = 2
_CONNECT_TIMEOUT_S = 10.0
"""A server that is there accepts within milliseconds, so waiting longer for that finds nobody."""
# h11 would refuse other headers too, with an error that shows them.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f]*")


@dataclass(frozen=True)
class Settings:
    """What both clients are made of. `Settings.of` checks what users give."""

    base_url: str
    """Without `/v1` and without a slash at its end."""
    api_key: str | None = field(repr=False)
    timeout_s: float
    max_retries: int
    headers: Mapping[str, str] = field(repr=False)
    verify: ssl.SSLContext | bool
    proxy: str | None = field(repr=False)

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
    ) -> "Settings":
        """Checked settings; an absent URL and key come from the environment. Raises `SettingsError`."""
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise SettingsError("max_retries must be a whole number from 0 on")
        return cls(
            base_url=_base_url(base_url or os.environ.get("PANACEA_BASE_URL") or DEFAULT_BASE_URL),
            api_key=_api_key(api_key or os.environ.get("PANACEA_API_KEY") or ""),
            timeout_s=checked_timeout_s(timeout),
            max_retries=max_retries,
            headers=_headers(headers or {}),
            # Made once, for it takes 30 ms, and comparisons have connections of their own.
            verify=httpx2.create_ssl_context() if verify is True else verify,
            proxy=_proxy(proxy),
        )

    def http_options(self) -> dict[str, Any]:
        """How httpx2's clients, blocking or not, are made."""
        # How many requests run at a time is for the caller to say; here none waits for a connection.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
        return {"verify": self.verify, "proxy": self.proxy, "limits": limits, "follow_redirects": False}


def timeouts(timeout_s: float) -> dict[str, float | None]:
    """httpx2's four timeouts: all are between two bytes and not for the whole."""
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S), pool=None).as_dict()


def checked_timeout_s(timeout: float) -> float:
    """`timeout` as it is. Raises `SettingsError` unless it is a number of seconds above 0."""
    if isinstance(timeout, bool) or not 0 < timeout < math.inf:
        raise SettingsError("timeout must be a number of seconds above 0")
    return timeout


def _base_url(given: str) -> str:
    problem = _problem_of(given.strip())
    if problem:
        raise SettingsError(f"base_url (or PANACEA_BASE_URL) {problem}; it looks like {DEFAULT_BASE_URL}")
    return given.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def _problem_of(given: str) -> str | None:
    """What is wrong with a URL. Says nothing of its content: a password may be in it."""
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL as error:
        return f"is no URL ({error})" if "@" not in given else "is no URL"
    if url.scheme not in {"http", "https"}:
        return "must begin with http:// or https://"
    if not url.host:
        return "names no host"
    if url.userinfo:
        return "has a user name or password; give the server's key as api_key"
    if url.query or url.fragment:
        return "must end before any ? or #"
    return None


def _api_key(given: str) -> str | None:
    key = given.strip()
    if not _HEADER_VALUE.fullmatch(key) or " " in key:
        raise SettingsError("api_key (or PANACEA_API_KEY) has spaces or control characters inside")
    return key or None


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise SettingsError("headers: a name is no header's name")
        if not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(f"headers: the value of {name} has control characters inside")
    return {name.lower(): value for name, value in given.items()}


def _proxy(given: str | None) -> str | None:
    if given is None:
        return None
    try:
        host = httpx2.Proxy(given).url.host
    except (ValueError, httpx2.InvalidURL):
        host = ""
    if not host:
        raise SettingsError("proxy must be a URL such as http://localhost:3128")
    return given

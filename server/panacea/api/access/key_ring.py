"""The API keys that are valid now, and what was used with each."""

import math
import time
from collections.abc import Iterable

from panacea.api.access.minute_rate import MinuteRate
from panacea.api_key import ApiKey
from panacea.config import Limits

RATE_HEADERS = tuple(
    f"x-ratelimit-{name}-{what}" for what in ("requests", "tokens") for name in ("limit", "remaining", "reset")
)
"""All names of `Account.rate_headers`."""


class Account:
    """One tenant: its key, its rates, and what it has used since the server's start or the key's."""

    def __init__(self, key: ApiKey | None, limits: Limits) -> None:
        """`key` is None for all clients of a server without keys together."""
        self.tenant = "" if key is None else key.tenant
        self.requests = MinuteRate(math.inf)
        self.tokens = MinuteRate(math.inf)
        self.total_requests = 0
        self.total_tokens = 0
        self.total_rejected = 0
        self._limits = limits
        self.key = key

    @property
    def key(self) -> ApiKey | None:
        return self._key

    @key.setter
    def key(self, key: ApiKey | None) -> None:
        """Takes over the limits of a new version of the same key. What was used stays used."""
        self._key = key
        requests, tokens = (None, None) if key is None else (key.requests_per_minute, key.tokens_per_minute)
        self.requests.per_minute = _first(requests, self._limits.requests_per_minute)
        self.tokens.per_minute = _first(tokens, self._limits.tokens_per_minute)

    @property
    def is_expired(self) -> bool:
        return self._key is not None and time.time() >= self._key.expires_at

    def rate_headers(self) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` headers for the limits that apply."""
        return {
            f"x-ratelimit-{name}-{what}": value
            for what, rate in (("requests", self.requests), ("tokens", self.tokens))
            if rate.is_limited
            for name, value in (
                ("limit", str(round(rate.per_minute))),
                ("remaining", str(rate.remaining)),
                ("reset", _duration(rate.reset_s)),
            )
        }


class KeyRing:
    """The accounts of all valid keys. Only the event loop changes it; the probe port's thread looks keys up.

    A key is found by its SHA-256 in a dictionary, so the time does not grow with the number of keys. A lookup's time
    can tell something about the digest of the key that was sent, and nothing that leads to another key: nobody can
    choose a key by its digest.
    """

    def __init__(self, keys: Iterable[ApiKey], limits: Limits) -> None:
        """Without keys the server is open to all, who have one account together."""
        self.anonymous = Account(None, limits)
        self.failed_reloads = 0
        self._limits = limits
        self._accounts: dict[bytes, Account] = {}
        self.replace(keys)

    @property
    def accounts(self) -> Iterable[Account]:
        return self._accounts.values()

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return not self._accounts

    @property
    def has_several(self) -> bool:
        """Whether there can be more than one tenant."""
        return len(self._accounts) > 1

    def find(self, digest: bytes) -> Account | None:
        """The account of the key with this SHA-256, expired or not."""
        return self._accounts.get(digest)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Makes exactly these keys valid. A key that stays keeps its account.

        Requests that are admitted already continue, also those of removed keys.
        """
        accounts: dict[bytes, Account] = {}
        for key in keys:
            account = self._accounts.get(key.digest) or Account(key, self._limits)
            account.key = key
            accounts[key.digest] = account
        self._accounts = accounts


def _first(own: float | None, default: float | None) -> float:
    if own is not None:
        return own
    return math.inf if default is None else default


def _duration(seconds: float) -> str:
    """A duration as OpenAI writes it: 6m0s, 1.5s, 20ms."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 10) / 10, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"

"""An API key: who may ask for what, until when, and how much. It holds a digest of the key, never the key itself."""

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

KeyScope = Literal["infer", "metrics", "admin"]
"""What a key may be used for: the API, `/metrics`, or the list of keys."""

DEFAULT_SCOPES: frozenset[KeyScope] = frozenset(("infer", "metrics"))
"""Scopes of a key without a name."""

_SHORT_DIGEST_CHARS = 8


@dataclass(frozen=True)
class ApiKey:
    """A key as the server knows it."""

    digest: bytes
    """SHA-256 of the key."""
    name: str | None = None
    scopes: frozenset[KeyScope] = DEFAULT_SCOPES
    expires_at: float = math.inf
    """Seconds since 1970. From then on the key is refused."""
    requests_per_minute: float | None = None
    """None: the server's default. Infinity: no limit."""
    tokens_per_minute: float | None = None
    """None: the server's default. Infinity: no limit."""

    @classmethod
    def of(cls, key: str, name: str | None = None, scopes: Collection[KeyScope] = DEFAULT_SCOPES) -> "ApiKey":
        """The key whose text is `key`."""
        return cls(key_digest(key.encode()), name, frozenset(scopes))

    @property
    def tenant(self) -> str:
        """What identifies the key's owner. It does not change when the key gets another name or other limits."""
        return self.digest.hex()

    @property
    def short_digest(self) -> str:
        """The beginning of the digest, for logs."""
        return self.digest.hex()[:_SHORT_DIGEST_CHARS]


def key_digest(key: bytes) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key).digest()

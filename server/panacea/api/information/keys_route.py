"""`GET /v1/keys`: the API keys of the server, and what was used with each."""

import math
from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter

from panacea.api.access.key_ring import Account, KeyRing
from panacea.api.access.minute_rate import MinuteRate
from panacea.api.error_responses import error_docs
from panacea.api.fields import Documented
from panacea.api_key import KeyScope


class KeyRate(Documented):
    """A limit per minute."""

    per_minute: int
    """What the key may use per minute."""
    remaining: int
    """What it may use now."""


class KeyCard(Documented):
    """An API key. The key itself is not known to the server."""

    name: str | None
    """Its name in the key file. Null in a file with one key on each line."""
    digest: str
    """The first 8 hexadecimal digits of the key's SHA-256, as in the log."""
    scopes: list[KeyScope]
    """What it may be used for."""
    expires: datetime | None
    """When it ends to be valid. Null: never."""
    requests: KeyRate | None
    """Its requests per minute. Null: no limit."""
    tokens: KeyRate | None
    """Its tokens per minute. Null: no limit."""
    total_requests: int
    """Answers that were asked for with it since the server started or the key was added."""
    total_tokens: int
    """Tokens of prompts and answers in the same time."""
    total_rejected: int
    """Requests with it that a limit refused in the same time."""


class KeyList(Documented):
    """All API keys."""

    object: Literal["list"] = "list"
    """Always list."""
    data: list[KeyCard]
    """The keys, in the order of the key file."""


def keys_router(keys: KeyRing) -> APIRouter:
    """The route for these keys. `BearerKeys` asks for the scope admin."""
    router = APIRouter(tags=["health"])

    @router.get("/v1/keys", summary="List the API keys", responses=error_docs(401, 403, 421, 431, 503))
    async def list_keys() -> KeyList:  # pyright: ignore[reportUnusedFunction]
        """The keys that are valid now, without the keys themselves. It needs a key with the scope admin."""
        return KeyList(data=[card for account in keys.accounts if (card := _card(account))])

    return router


def _card(account: Account) -> KeyCard | None:
    key = account.key
    if key is None:
        return None
    expires = None if math.isinf(key.expires_at) else datetime.fromtimestamp(key.expires_at, UTC)
    return KeyCard(
        name=key.name,
        digest=key.short_digest,
        scopes=sorted(key.scopes),
        expires=expires,
        requests=_rate(account.requests),
        tokens=_rate(account.tokens),
        total_requests=account.total_requests,
        total_tokens=account.total_tokens,
        total_rejected=account.total_rejected,
    )


def _rate(rate: MinuteRate) -> KeyRate | None:
    return KeyRate(per_minute=round(rate.per_minute), remaining=rate.remaining) if rate.is_limited else None

"""API keys: checks the Authorization header."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from panacea.api.error_responses import ApiError
from panacea.api.information.web_page import FOLDER

PUBLIC_PATHS = frozenset({"/", "/health", "/ready"})
"""Paths that need no key. The page's files need none either. All other paths do, whether they exist or not."""

_KEY_DIGEST = "key_digest"


class BearerKeys:
    """Answers 401 to requests without one of the keys. A server without keys accepts all requests."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._digests = tuple(_digest(key.encode()) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._digests or self._may_pass(scope):
            await self.app(scope, receive, send)
            return
        error = ApiError(
            401,
            "this server needs an API key; send Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
        await error.response()(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path in PUBLIC_PATHS or path.startswith(f"{FOLDER}/") or self._is_known(scope)

    def _is_known(self, scope: Scope) -> bool:
        given_headers = Headers(scope=scope).getlist("authorization")
        if len(given_headers) != 1:  # a proxy may have checked another one of several headers
            return False
        scheme, _, key = given_headers[0].partition(" ")
        # Headers are latin-1 on the wire; keys are UTF-8. All digests have the same length and all are compared, so the
        # time reveals neither a key nor which key matched.
        given = _digest(key.strip().encode("latin-1"))
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            return False
        scope.setdefault("state", {})[_KEY_DIGEST] = given
        return True


def key_digest(request: Request) -> bytes | None:
    """A digest of the request's API key. None on a server without keys."""
    digest: bytes | None = getattr(request.state, _KEY_DIGEST, None)
    return digest


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

"""API keys: checks the Authorization header, and what the key may be used for."""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from panacea.api.access.admission import Admission
from panacea.api.access.key_ring import Account
from panacea.api.access.wrong_keys import WrongKeys
from panacea.api.connections.client_address import client_address
from panacea.api.error_responses import ApiError
from panacea.api.information.web_page import FOLDER
from panacea.api_key import KeyScope, key_digest

PUBLIC_PATHS = frozenset({"/", "/health", "/ready"})
"""Paths that need no key. The page's files need none either. All other paths do, whether they exist or not."""

SCOPES: dict[str, KeyScope] = {"/metrics": "metrics", "/v1/keys": "admin"}
"""The scope that a path needs. Every other path needs `infer`."""

_ACCOUNT = "account"


class BearerKeys:
    """Finds the account of each request by its key. A server without keys has one account for all requests.

    Answers 401 to requests without a valid key, 403 where the key lacks the path's scope, and 429 to wrong keys from an
    address that has sent too many of them.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self._admission = admission
        self._wrong_keys = WrongKeys(admission.limits.max_wrong_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            account = self._account(scope)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        scope.setdefault("state", {})[_ACCOUNT] = account
        await self.app(scope, receive, send)

    def _account(self, scope: Scope) -> Account:
        keys, path = self._admission.keys, scope["path"]
        if keys.is_open or path in PUBLIC_PATHS or path.startswith(f"{FOLDER}/"):
            return keys.anonymous
        given = Headers(scope=scope).getlist("authorization")
        if not given:
            raise _no_key("this server needs an API key; send Authorization: Bearer KEY")
        account = keys.find(key_digest(_bearer(given)))
        if account is None or account.key is None:
            raise self._wrong_key(client_address(scope))
        if account.is_expired:
            raise _no_key("this API key has expired; ask the server's operator for another one", "expired_api_key")
        needed = SCOPES.get(path, "infer")
        if needed not in account.key.scopes:
            message = f"this API key lacks the scope {needed}; ask the server's operator for a key that has it"
            raise ApiError(403, message, code="missing_scope")
        return account

    def _wrong_key(self, address: str) -> ApiError:
        wait_s = self._wrong_keys.count(address)
        if not wait_s:
            return _no_key("the API key is wrong; send Authorization: Bearer KEY")
        message = "too many wrong API keys came from this address; correct the key before you try again"
        return self._admission.refuse("too_many_wrong_keys", message, retry_after_s=wait_s)


def account_of(request: Request) -> Account:
    """The account that a request uses."""
    account: Account = getattr(request.state, _ACCOUNT)
    return account


def known_account(scope: Scope) -> Account | None:
    """The account of a request that may have been refused before it was found."""
    account: Account | None = scope.get("state", {}).get(_ACCOUNT)
    return account


def _bearer(given: list[str]) -> bytes:
    """The bearer key of the header. Empty if there is none, or several headers: a proxy may have checked another."""
    scheme, _, key = given[0].partition(" ")
    # Headers are latin-1 on the wire; keys are UTF-8.
    return key.strip().encode("latin-1") if len(given) == 1 and scheme.lower() == "bearer" else b""


def _no_key(message: str, code: str = "invalid_api_key") -> ApiError:
    return ApiError(401, message, code=code, headers={"www-authenticate": "Bearer"})

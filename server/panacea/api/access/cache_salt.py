"""The cache salt: which requests share cached prefixes."""

from starlette.requests import Request

from panacea.api.access.bearer_keys import account_of
from panacea.digest import Digest


def cache_salt(request: Request, asked: str | None) -> str:
    """The engine's salt for a request whose field `cache_salt` is `asked`.

    It depends on the API key and on the field. The key keeps tenants apart: response times must not reveal which
    prompts another key has sent. The field lets a client keep its own users apart. Without keys, only the field counts.
    The engine gets a digest of the key's digest, never the key.
    """
    key = account_of(request).key
    return (
        Digest(b"panacea salt")
        .add(None if key is None else key.digest, None if asked is None else asked.encode())
        .value.hex()
    )

"""Who shares cached prefixes with whom."""

from starlette.requests import Request

from panacea.api.access.bearer_keys import key_digest
from panacea.digest import Digest


def cache_salt(request: Request, asked: str | None) -> str:
    """The engine's salt for a request that asks for the salt `asked`.

    It is made of both: of the API key that the request came with, so that how fast one key's prompts are answered says
    nothing about another's, and of what the client asks for, who may keep its own users apart. Requests to a server
    without keys are all of one kind. The key itself goes nowhere, only a digest of its digest.
    """
    return Digest(b"panacea salt").add(key_digest(request), None if asked is None else asked.encode()).value.hex()

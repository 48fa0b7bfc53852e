"""Keys of cached blocks. A key covers everything that a block's keys and values depend on, and the salt that limits
which requests may share it.

    root    = H["panacea prefix"](base, adapter, preference, salt)
    key[0]  = H["panacea block"](root,       the tokens of block 0)
    key[i]  = H["panacea block"](key[i - 1], the tokens of block i)

H is `panacea.digest.Digest`, which also hashes the domain (the text in brackets) and the length of each part. Two keys
are therefore equal if and only if these are equal: base, adapter content, preference, salt, and all tokens up to the
end of the block. Names of models and adapters are not part of the key.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from panacea.digest import Digest
from panacea.preference import Preference


@dataclass(frozen=True)
class ModelIdentity:
    """Digests of the base model and of the adapter."""

    base: bytes
    adapter: bytes | None
    """Digest of the adapter's content, independent of its path and name; None without an adapter."""


def root_key(identity: ModelIdentity, preference: Preference | None, salt: str) -> bytes:
    """The start of the chain of a request's keys.

    The weights of `preference` are hashed as 64-bit floats, with -0.0 as 0.0. None is the bare base. Its key differs
    from that of every preference, also from one without weights. Requests with different salts never share a block.
    """
    weights = None if preference is None else struct.pack(f"<{len(preference)}d", *(w + 0.0 for w in preference))
    return (
        Digest(b"panacea prefix")
        .add(identity.base, identity.adapter, weights, salt.encode("utf-8", "surrogatepass"))
        .value
    )


def next_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a block that holds `tokens`. `before` is the key of the block before it, or the root key."""
    return Digest(b"panacea block").add(before, struct.pack(f"<{len(tokens)}I", *tokens)).value

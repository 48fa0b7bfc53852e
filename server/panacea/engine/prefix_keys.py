"""Names of prefixes in the KV cache: a name stands for all that a block's keys and values depend on, and who may know.

    root    = H["panacea prefix"](base, adapter, preference, salt)
    key[0]  = H["panacea block"](root,       the tokens of block 0)
    key[i]  = H["panacea block"](key[i - 1], the tokens of block i)

H is `panacea.digest.Digest`: domains and lengths are part of what is hashed, so two keys are equal if and only if base,
adapter content, preference, salt and all tokens up to the block's end are. Names of models and adapters do not enter.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from panacea.digest import Digest
from panacea.preference import Preference


@dataclass(frozen=True)
class ModelIdentity:
    """Digests of what the model is made of."""

    base: bytes
    adapter: bytes | None
    """Of the adapter's content, wherever it lies and whatever it is called; None without one."""


def root_key(identity: ModelIdentity, preference: Preference | None, salt: str) -> bytes:
    """What the chain of a request's keys begins with.

    `preference` counts by its weights' 64-bit floats, with -0.0 as 0.0. None is the bare base, which is like no
    preference, also not like one without weights. Requests with different salts never share anything.
    """
    weights = None if preference is None else struct.pack(f"<{len(preference)}d", *(w + 0.0 for w in preference))
    return (
        Digest(b"panacea prefix")
        .add(identity.base, identity.adapter, weights, salt.encode("utf-8", "surrogatepass"))
        .value
    )


def next_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a block that holds `tokens`, behind the block (or root) of key `before`."""
    return Digest(b"panacea block").add(before, struct.pack(f"<{len(tokens)}I", *tokens)).value

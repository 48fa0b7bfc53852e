"""Hashes of several values, such that two digests are equal if and only if all values are. Plain Python."""

import hashlib

SIZE_BYTES = 32


class Digest:
    """BLAKE2b over fields, in a domain of its own.

    The domain enters as BLAKE2b's personalisation, so that equal fields mean different things in different domains. A
    field is a byte that says whether it is there, its length in eight bytes, and its bytes: no two lists of fields are
    the same string of bytes, as they would be if values were glued together.
    """

    def __init__(self, domain: bytes) -> None:
        """`domain`: at most 16 bytes."""
        self._hash = hashlib.blake2b(digest_size=SIZE_BYTES, person=domain)

    def add(self, *fields: bytes | None) -> "Digest":
        """The same with more fields. None is a field that is absent, which an empty one is not."""
        for field in fields:
            if field is None:
                self._hash.update(b"\0")
            else:
                self._hash.update(b"\1" + len(field).to_bytes(8, "little"))
                self._hash.update(field)
        return self

    @property
    def value(self) -> bytes:
        """`SIZE_BYTES` bytes that stand for all fields so far."""
        return self._hash.digest()

"""Hashes of several values. Two digests are equal if and only if all values are equal. Plain Python."""

import hashlib

SIZE_BYTES = 32


class Digest:
    """BLAKE2b over fields, within a domain.

    The domain is BLAKE2b's personalisation, so equal fields in different domains have different digests. A field is
    encoded as a presence byte, its length in eight bytes, and its bytes. So two different lists of fields never have
    the same encoding, which plain concatenation would not guarantee.
    """

    def __init__(self, domain: bytes) -> None:
        """`domain` has at most 16 bytes."""
        self._hash = hashlib.blake2b(digest_size=SIZE_BYTES, person=domain)

    def add(self, *fields: bytes | None) -> "Digest":
        """Adds fields and returns this digest. None is an absent field, which differs from an empty one."""
        for field in fields:
            if field is None:
                self._hash.update(b"\0")
            else:
                self._hash.update(b"\1" + len(field).to_bytes(8, "little"))
                self._hash.update(field)
        return self

    @property
    def value(self) -> bytes:
        """The digest (`SIZE_BYTES` bytes) of all fields so far."""
        return self._hash.digest()

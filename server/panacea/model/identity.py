"""What tells one base model from another, for the names of cached prefixes. No torch."""

from pathlib import Path

from panacea.digest import Digest

_HEADER_LENGTH_BYTES = 8


def base_identity(folder: Path, dtype: str) -> bytes:
    """A digest of a base's config and of its weight files' names, sizes, times of change and safetensors headers.

    The weights themselves are not read once more, which would take as long as loading them did: names of prefixes live
    in one process with one base. `dtype` is what it computes in.
    """
    digest = Digest(b"panacea base").add(dtype.encode(), (folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        status = path.stat()
        digest.add(path.name.encode(), b"%d %d" % (status.st_size, status.st_mtime_ns), _header(path))
    return digest.value


def _header(path: Path) -> bytes:
    """Names, dtypes, shapes and places of a file's tensors."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little"))

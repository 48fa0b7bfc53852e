"""The identity of a base model, which is part of every prefix-cache key. This module does not import torch."""

from pathlib import Path

from panacea.digest import Digest

_HEADER_LENGTH_BYTES = 8


def base_identity(folder: Path, dtype: str) -> bytes:
    """A digest of a base's config and of its weight files' names, sizes, modification times and safetensors headers.

    It does not read the weights, which would take as long as loading them. This is enough, because prefix-cache keys
    never leave a process, and a process has one base. `dtype` is the dtype of its computation.
    """
    digest = Digest(b"panacea base").add(dtype.encode(), (folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        status = path.stat()
        digest.add(path.name.encode(), b"%d %d" % (status.st_size, status.st_mtime_ns), _header(path))
    return digest.value


def _header(path: Path) -> bytes:
    """Names, dtypes, shapes and offsets of a file's tensors."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little"))

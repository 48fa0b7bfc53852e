"""An adapter and its tensors: reads, checks and writes `adapter_model.safetensors`."""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from panacea.digest import Digest
from panacea.errors import CheckpointError
from panacea.model.adapter_config import AdapterConfig
from panacea.model.stored_tensors import PLAIN_DTYPES, read_header

WEIGHTS_FILE = "adapter_model.safetensors"
MOST_NAME_CHARS = 256
_TENSOR_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[ABE])")


class LowRank(NamedTuple):
    """One module's tensors: dW = scaling * b diag(e * w) a."""

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    e: torch.Tensor  # (r,)


def read_parts(
    folder: Path, tensor_name: re.Pattern[str], refusal: Callable[[str], str]
) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of an adapter's weights file, by the groups `module` and `part` of `tensor_name`.

    `refusal` words the error for a tensor of another name. Raises `CheckpointError` for it, and for a file that is
    missing, damaged or empty.
    """
    path = folder / WEIGHTS_FILE
    parts: dict[str, dict[str, torch.Tensor]] = {}
    if not path.exists():
        raise CheckpointError(f"{folder}: {WEIGHTS_FILE} is missing (other formats are not read)")
    stored = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name, dtype in stored:
                match = tensor_name.fullmatch(name) if len(name) <= MOST_NAME_CHARS else None
                if match is None:
                    raise CheckpointError(refusal(name[:MOST_NAME_CHARS]))
                if dtype not in PLAIN_DTYPES and dtype.startswith("F"):
                    raise CheckpointError(f"{path}: {name} has dtype {dtype}: store adapters in 16 or 32 bits")
                parts.setdefault(match["module"], {})[match["part"]] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not parts:
        raise CheckpointError(f"{path} holds no tensors")
    return parts


@dataclass(frozen=True)
class Adapter:
    """A Panacea adapter on the CPU, in the dtype of its file. Keys of `modules` are dotted names in the base model."""

    config: AdapterConfig
    modules: Mapping[str, LowRank]

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        """Reads an adapter's folder. Only safetensors is read, never pickle.

        Raises `CheckpointError` for a missing or damaged file, for a tensor of unknown name, wrong shape or wrong
        dtype, for a module with only some of its three tensors, and for values that are not finite.
        """
        config = AdapterConfig.read(folder)
        path = folder / WEIGHTS_FILE
        parts = read_parts(folder, _TENSOR_NAME, lambda name: f"{path}: {name!r} is not a tensor of a Panacea adapter")
        modules = {module: _low_rank(path, module, tensors, config.rank) for module, tensors in parts.items()}
        return cls(config, modules)

    def content_digest(self) -> bytes:
        """A digest (32 bytes) of everything that the model's output depends on.

        This is the scaling, the columns, and each tensor's module, part, dtype, shape and bytes. Names of dimensions,
        presets, descriptions and paths do not count.
        """
        columns = self.config.preference_columns
        digest = Digest(b"panacea adapter").add(
            struct.pack("<d", self.config.scaling), struct.pack(f"<{len(columns)}q", *columns)
        )
        for module, parts in sorted(self.modules.items()):
            for part, tensor in zip("ABE", parts, strict=True):
                content = tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes()
                digest.add(module.encode(), part.encode(), f"{tensor.dtype} {tuple(tensor.shape)}".encode(), content)
        return digest.value

    def write(self, folder: Path) -> None:
        """Writes the adapter's folder. Reading it back gives the same tensors."""
        self.config.write(folder)
        tensors = {
            f"base_model.model.{module}.lora_{part}": tensor.contiguous()
            for module, (a, b, e) in self.modules.items()
            for part, tensor in (("A", a), ("B", b), ("E", e.unsqueeze(1)))
        }
        # `save_file` would write mode 0600, but a server under another user must be able to read the adapter.
        (folder / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))


def _low_rank(path: Path, module: str, tensors: Mapping[str, torch.Tensor], rank: int) -> LowRank:
    missing = [part for part in "ABE" if part not in tensors]
    if missing:
        raise CheckpointError(f"{path}: lora_{missing[0]} of {module} is missing")
    a, b, e = tensors["A"], tensors["B"], tensors["E"]
    for part, tensor, fits, wanted in (
        ("A", a, a.dim() == 2 and a.shape[0] == rank, f"({rank}, in)"),
        ("B", b, b.dim() == 2 and b.shape[1] == rank, f"(out, {rank})"),
        ("E", e, tuple(e.shape) == (rank, 1), f"({rank}, 1)"),
    ):
        if not fits:
            raise CheckpointError(f"{path}: {module}.lora_{part} has shape {tuple(tensor.shape)}, not {wanted}")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {module}.lora_{part} has dtype {tensor.dtype}, not a floating-point dtype")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(f"{path}: {module}.lora_{part} has values that are not finite")
    return LowRank(a, b, e.squeeze(1))

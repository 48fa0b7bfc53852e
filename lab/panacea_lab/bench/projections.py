"""The projections of one decoder layer as `bench kernels` sees them: shapes, random inputs, ways to compute them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

import panacea_kernels as pk
from panacea.errors import ConfigError
from panacea_kernels import reference
from panacea_kernels.backend import choose_backend
from panacea_lab.bench.measurement import BenchError

TOLERANCES = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 1e-2}
"""Most that a result may differ from float32's, in the Euclidean norm: rounding stays several times below."""

# The library's GEMM, and the fused kernel with its low-rank path left out: what steering is compared with.
BASES = ("cublas", "fused_base")
STEERED = ("fused", "expand", "default", "torch", "generic")


@dataclass(frozen=True)
class Group:
    """Projections that read the same input, as one weight."""

    name: str
    in_features: int
    sections: tuple[int, ...]

    @property
    def out_features(self) -> int:
        return sum(self.sections)

    def weight_bytes(self, dtype: torch.dtype) -> int:
        return self.in_features * self.out_features * dtype.itemsize


def groups_of(config: Any) -> list[Group]:
    """The four weights of a layer of this transformers config. Raises `ConfigError` if it has others."""
    try:
        head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        q, kv = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
        hidden, inner = config.hidden_size, config.intermediate_size
    except AttributeError as error:
        raise ConfigError(f"the config has no {error.name}: a model of Llama's kind is needed") from None
    return [
        Group("q+k+v", hidden, (q, kv, kv)),
        Group("o", q, (hidden,)),
        Group("gate+up", hidden, (inner, inner)),
        Group("down", inner, (hidden,)),
    ]


@dataclass(frozen=True)
class Inputs:
    """The arguments of `panacea_kernels.steered_linear`."""

    x: torch.Tensor
    weight: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    table: torch.Tensor
    slots: torch.Tensor
    sections: tuple[int, ...] | None

    def float32(self) -> "Inputs":
        x, weight, a, b = (tensor.float() for tensor in (self.x, self.weight, self.a, self.b))
        return Inputs(x, weight, a, b, self.table, self.slots, self.sections)

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.x, self.weight, self.a, self.b, self.table, self.slots, None, self.sections


def random_weights(group: Group, count: int, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    """`count` weights (out, in). Products with them are about as large as their input."""
    shape = (group.out_features, group.in_features)
    return [torch.randn(shape, device=device, dtype=dtype).mul_(group.in_features**-0.5) for _ in range(count)]


def random_inputs(group: Group, weights: list[torch.Tensor], rows: int, rank: int) -> list[Inputs]:
    """Inputs for each of `weights`, every row with a slot of its own. The adapter changes about half of the result."""
    device, dtype, size = weights[0].device, weights[0].dtype, group.in_features

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype).mul_(scale)

    return [
        Inputs(
            x=random(rows, size),
            weight=weight,
            a=random(len(group.sections) * rank, size, scale=size**-0.5),
            b=random(group.out_features, rank, scale=rank**-0.5),
            table=torch.rand(rows + 1, rank, device=device),
            slots=(torch.randperm(rows, device=device) + 1).to(torch.int32),
            sections=group.sections if len(group.sections) > 1 else None,
        )
        for weight in weights
    ]


def paths() -> dict[str, Callable[[Inputs], torch.Tensor]]:
    """All ways to compute, with and without adapter, by name (`BASES` and `STEERED`)."""

    def forced(backend: pk.Backend, inputs: Inputs) -> torch.Tensor:
        with pk.use_backend(backend):
            return pk.steered_linear(*inputs.arguments)

    def fused_base(inputs: Inputs) -> torch.Tensor:
        with pk.use_backend("triton_fused"):
            return pk.linear(inputs.x, inputs.weight)

    def generic(inputs: Inputs) -> torch.Tensor:
        with pk.use_backend("triton"):
            choose_backend(inputs.x)  # raises where Triton cannot run
        from panacea_lab.bench.generic_lora import generic_lora  # noqa: PLC0415 - imports triton

        return generic_lora(*inputs.arguments)

    return {
        "cublas": lambda inputs: F.linear(inputs.x, inputs.weight),
        "fused_base": fused_base,
        "fused": lambda inputs: forced("triton_fused", inputs),
        "expand": lambda inputs: forced("triton_expand", inputs),
        "default": lambda inputs: pk.steered_linear(*inputs.arguments),
        "torch": lambda inputs: forced("torch", inputs),
        "generic": generic,
    }


def expected_results(inputs: Inputs) -> Mapping[str, torch.Tensor]:
    """The results in float32: without adapter for `BASES`, with it for `STEERED`."""
    exact = inputs.float32()
    steered = reference.steered_linear(*exact.arguments)
    base = F.linear(exact.x, exact.weight)
    results: dict[str, torch.Tensor] = dict.fromkeys(STEERED, steered)
    results.update(dict.fromkeys(BASES, base))
    return results


def check(name: str, path: Callable[[Inputs], torch.Tensor], inputs: Inputs, expected: torch.Tensor) -> float:
    """The path's relative error against `expected`. Raises `BenchError` where it is more than rounding."""
    # The allocator hands the memory of a result out again: what a path leaves unwritten must not look right.
    torch.full(expected.shape, math.nan, device=inputs.x.device, dtype=inputs.x.dtype)
    got = path(inputs)
    error = float((got.float() - expected).norm() / expected.norm())
    tolerance = TOLERANCES[inputs.x.dtype]
    if not error <= tolerance:  # true for NaN too
        rows, rank, shape = inputs.x.shape[0], inputs.b.shape[1], tuple(inputs.weight.shape)
        raise BenchError(
            f"path {name!r} is wrong for {rows} rows, rank {rank} and a weight of {shape}: its error is {error:.2g}, "
            f"more than {tolerance:g}; nothing is measured"
        )
    return error

"""Panacea models of other public implementations: base and adapter in one checkpoint, in one of two layouts.

With m dimensions, k shared columns, and `factor` the output multiplier:

    DeepSpeed-Chat's names          y += factor * ((x R) * [d, s lambda]) L
        R lora_right_weight (in, k + m)    L lora_left_weight (k + m, out)    d lora_diagonal_weight (1, k)
        s pref_scaling (1,)    pref_diagonal_weight (1, m) is a placeholder    factor panacea_scaling / panacea_lora_dim

    blocks of preference columns    y += factor * (x (A * c)^T) B^T    c = [d, s_1 lambda, ..., s_p lambda]
        A lora_A (k + p m, in)    B lora_B (out, k + p m)    s pref_scaling (p,)    factor lora_alpha / r
        d the first k of lora_diag (k + p m, 1); its other entries hold the preference that was set last
        k and p may differ from module to module, as training may split shared columns into preference columns
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from panacea.errors import CheckpointError, ConfigError
from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import SHARED, AdapterConfig
from panacea.preference import Dimension, Preference, PreferenceSpace
from panacea_train.convert.agreement import Agreement, Change, Computing, check
from panacea_train.convert.base_model import check_fits, linear_layers, target_names
from panacea_train.convert.checkpoint_split import split_checkpoint
from panacea_train.convert.conversion_stages import stages
from panacea_train.output_folder import new_folder

_ADAPTER_TENSOR = re.compile(r"(?P<module>.+)\.(?P<part>(?:lora|pref)_\w+)(?:\.weight)?")
_DEEPSPEED_PARTS = {"lora_right_weight", "lora_left_weight", "lora_diagonal_weight", "pref_scaling"}
_PLACEHOLDER = "pref_diagonal_weight"
_BLOCK_PARTS = {"lora_A", "lora_B", "lora_diag", "pref_scaling"}
_CONFIG_FILES = ("panacea_config.json", "adapter_config.json")


@dataclass(frozen=True)
class SourceModule:
    """One module's tensors, independent of their layout."""

    a: torch.Tensor  # (k + p m, in)
    b: torch.Tensor  # (out, k + p m)
    shared: torch.Tensor  # (k,)
    scales: torch.Tensor  # (p,)
    add: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(x, lambda (m,)) -> the source's own change of y, before `factor`."""


def convert_third_party(
    source: Path,
    names: Sequence[str],
    out: Path,
    *,
    factor: float | None = None,
    default: Mapping[str, float] | Sequence[float] | None = None,
    overwrite: bool = False,
    computing: Computing | None = None,
) -> Agreement:
    """Writes `out`/base and `out`/adapter of the checkpoint in `source`.

    `names`: the dimensions in the checkpoint's order; () takes them from its config. `factor`: the output multiplier,
    if no config has it. `default`: the default preference; None is equal weights.

    Raises `ConfigError` for missing arguments, `CheckpointError` for a checkpoint of unknown layout or a result that
    differs from it, and `PreferenceError` for names or weights that do not make a preference space.
    """
    config = _read_config(source)
    names = tuple(names) or tuple(config.get("objective_names") or ())
    if not names:
        raise ConfigError("the checkpoint does not name its dimensions: name them with --dimension, in its order")
    count = config.get("panacea_pref_dim", config.get("pref_dim"))
    if count not in (None, len(names)):
        raise ConfigError(f"the checkpoint has {count} dimensions, but {len(names)} are named: {', '.join(names)}")
    dimensions = tuple(Dimension(name) for name in names)
    space = PreferenceSpace(dimensions, default=(1.0,) * len(names))
    if default is not None:
        space = PreferenceSpace(dimensions, default=space.resolve(default))
    files = len(list(source.glob("*.safetensors")))
    with new_folder(out, overwrite=overwrite) as new, stages("convert third-party", files + 3) as stage:
        tensors = split_checkpoint(source, new / "base", _base_name, stage)
        stage("adapter")
        modules = _modules(source, tensors, len(names))
        factor = _factor(config, modules) if factor is None else factor
        linears = linear_layers(new / "base")
        shapes = {name: (module.a.shape[1], module.b.shape[0]) for name, module in modules.items()}
        check_fits(str(source), shapes, linears)
        steerable(modules, factor, space, tuple(linears)).write(new / "adapter")
        changes = {name: _change(module, factor) for name, module in modules.items()}
        return check(new / "base", changes, new / "adapter", len(names), computing or Computing(), stage)


def steerable(
    modules: Mapping[str, SourceModule], factor: float, space: PreferenceSpace, linears: Sequence[str]
) -> Adapter:
    """The adapter: the most shared columns of any module, then the most blocks of one column for each dimension."""
    m = len(space.dimensions)
    shared = max(len(module.shared) for module in modules.values())
    blocks = max(len(module.scales) for module in modules.values())
    columns = (*(SHARED,) * shared, *tuple(range(m)) * blocks)
    config = AdapterConfig("../base", factor, target_names(modules, linears), columns, space)
    return Adapter(config, {name: _low_rank(module, shared, len(columns), m) for name, module in modules.items()})


def _low_rank(module: SourceModule, shared: int, rank: int, m: int) -> LowRank:
    own = len(module.shared)
    values = torch.cat([module.shared, module.scales.repeat_interleave(m)]).float()
    columns = torch.cat([torch.arange(own), torch.arange(shared, shared + len(values) - own)])
    a = module.a.new_zeros(rank, module.a.shape[1])
    b = module.b.new_zeros(module.b.shape[0], rank)
    e = torch.zeros(rank)
    a[columns], b[:, columns], e[columns] = module.a, module.b, values
    return LowRank(a, b, e)


def _change(module: SourceModule, factor: float) -> Change:
    def add(x: torch.Tensor, preference: Preference) -> torch.Tensor:
        return factor * module.add(x, x.new_tensor(preference))

    return add


def _base_name(name: str) -> str | None:
    return None if _ADAPTER_TENSOR.fullmatch(name) else name.replace(".base_layer.", ".")


def _read_config(source: Path) -> dict[str, Any]:
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source} is not a model: config.json is missing")
    for path in (source / name for name in _CONFIG_FILES):
        if path.is_file():
            try:
                content = json.loads(path.read_text("utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}") from None
            if not isinstance(content, dict):
                raise CheckpointError(f"{path} is not a JSON object")
            return content
    return {}


def _factor(config: Mapping[str, Any], modules: Mapping[str, SourceModule]) -> float:
    """The output multiplier, by the config's own fields."""
    for scaling, rank in (("panacea_scaling", "panacea_lora_dim"), ("lora_alpha", "r")):
        if scaling in config and rank in config:
            try:
                return float(config[scaling]) / float(config[rank])
            except (TypeError, ValueError, ZeroDivisionError):
                raise CheckpointError(f"{scaling} / {rank} of the checkpoint's config is not a number") from None
    ranks = sorted({len(module.shared) for module in modules.values()})
    raise ConfigError(
        "the checkpoint does not say its output multiplier, alpha / r: give it with --factor "
        f"(r is the number of shared columns at the start of training; now there are {', '.join(map(str, ranks))})"
    )


def _modules(source: Path, tensors: Mapping[str, torch.Tensor], m: int) -> dict[str, SourceModule]:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _ADAPTER_TENSOR.fullmatch(name)
        assert match is not None
        if match["part"] not in _DEEPSPEED_PARTS | _BLOCK_PARTS | {_PLACEHOLDER}:
            raise CheckpointError(f"{source}: {name} does not belong to a known layout")
        if not (tensor.is_floating_point() and bool(torch.isfinite(tensor.float()).all())):
            raise CheckpointError(f"{source}: {name} has values that are not finite numbers")
        parts.setdefault(match["module"], {})[match["part"]] = tensor
    if not parts:
        raise CheckpointError(f"{source} has no tensors of an adapter")
    return {module: _module(f"{source}: {module}", found, m) for module, found in parts.items()}


def _module(where: str, found: Mapping[str, torch.Tensor], m: int) -> SourceModule:
    names = found.keys() - {_PLACEHOLDER}
    if names == _DEEPSPEED_PARTS:
        return _deepspeed_module(where, found, m)
    if names == _BLOCK_PARTS:
        return _block_module(where, found, m)
    raise CheckpointError(f"{where} has {', '.join(sorted(names))}, which is not a known layout")


def _deepspeed_module(where: str, found: Mapping[str, torch.Tensor], m: int) -> SourceModule:
    right, left, diagonal, scale = (
        found[name] for name in ("lora_right_weight", "lora_left_weight", "lora_diagonal_weight", "pref_scaling")
    )
    k = diagonal.numel()
    _check_shape(where, "pref_scaling", scale, (1,))
    _check_shape(where, "lora_diagonal_weight", diagonal, (1, k))
    _check_shape(where, "lora_right_weight", right, (None, k + m))
    _check_shape(where, "lora_left_weight", left, (k + m, None))

    def add(x: torch.Tensor, preference: torch.Tensor) -> torch.Tensor:
        values = torch.cat([diagonal.to(x), (scale.to(x) * preference)[None]], dim=1)
        return ((x @ right.to(x)) * values) @ left.to(x)

    return SourceModule(right.t(), left.t(), diagonal[0], scale, add)


def _block_module(where: str, found: Mapping[str, torch.Tensor], m: int) -> SourceModule:
    a, b, diagonal, scales = (found[name] for name in ("lora_A", "lora_B", "lora_diag", "pref_scaling"))
    total, p = len(diagonal), scales.numel()
    k = total - p * m
    if k < 0:
        raise CheckpointError(f"{where} has {total} columns, fewer than {p} blocks of {m} dimensions")
    _check_shape(where, "pref_scaling", scales, (p,))
    _check_shape(where, "lora_diag", diagonal, (total, 1))
    _check_shape(where, "lora_A", a, (total, None))
    _check_shape(where, "lora_B", b, (None, total))

    def add(x: torch.Tensor, preference: torch.Tensor) -> torch.Tensor:
        blocks = [scale * preference for scale in scales.to(x)]
        values = torch.cat([diagonal[:k, 0].to(x), *blocks])
        return x @ (a.to(x) * values[:, None]).t() @ b.to(x).t()

    return SourceModule(a, b, diagonal[:k, 0], scales, add)


def _check_shape(where: str, name: str, tensor: torch.Tensor, shape: tuple[int | None, ...]) -> None:
    fits = tensor.dim() == len(shape) and all(s in (None, size) for s, size in zip(shape, tensor.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise CheckpointError(f"{where}.{name} has shape {tuple(tensor.shape)}, not ({wanted})")

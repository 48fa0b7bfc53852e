"""Rewarded soups: several ordinary LoRA adapters become the dimensions of one steerable adapter.

    sum_d lambda[d] * scale_d B_d A_d  =  B diag(E w(lambda)) A        A: the A_d one below another, B: side by side,
                                                                       E: scale_d on adapter d's columns

This is the weight mixing of rewarded soups (arXiv 2306.04488) with adapters instead of models. It is exact: nothing is
decomposed or approximated. A module that an adapter does not adapt has zero columns there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from panacea.errors import CheckpointError, ConfigError
from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import AdapterConfig
from panacea.model.hub import local_folder
from panacea.preference import Dimension, Preference, PreferenceSpace
from panacea_train.convert.agreement import Agreement, Change, Computing, check
from panacea_train.convert.base_model import as_base, check_fits, linear_layers, relative_base, target_names
from panacea_train.convert.conversion_stages import stages
from panacea_train.convert.lora import LoraAdapter, lora_output
from panacea_train.output_folder import new_folder

MOST_ADAPTERS = 10


def convert_soup(
    folders: Mapping[str, Path],
    out: Path,
    *,
    model: str | None = None,
    default: Mapping[str, float] | Sequence[float] | None = None,
    overwrite: bool = False,
    computing: Computing | None = None,
) -> Agreement:
    """Writes one steerable adapter to `out`, with a dimension for each LoRA adapter in `folders`.

    `model`: the base, a folder or hub id; None is the one that all adapters name. `default`: the default preference;
    None is equal weights. The result is checked before it is there.

    Raises `ConfigError` for what cannot be asked for, `CheckpointError` for adapters that cannot be converted exactly
    and for a result that differs, `PreferenceError` for names or weights that make no preference space.
    """
    if not 2 <= len(folders) <= MOST_ADAPTERS:
        raise ConfigError(f"a soup needs two to {MOST_ADAPTERS} adapters, not {len(folders)}")
    names = tuple(Dimension(name) for name in folders)
    space = PreferenceSpace(names, default=(1.0,) * len(names))
    if default is not None:
        space = PreferenceSpace(names, default=space.resolve(default))
    with new_folder(out, overwrite=overwrite) as new, stages("convert soup", 4) as stage:
        stage("adapters")
        sources = [LoraAdapter.read(folder) for folder in folders.values()]
        base = common_base(sources) if model is None else as_base(model)
        base_folder = local_folder(str(base))
        linears = linear_layers(base_folder)
        for source in sources:
            shapes = {name: (factors.a.shape[1], factors.b.shape[0]) for name, factors in source.modules.items()}
            check_fits(str(source.folder), shapes, linears)
        stage("writing")
        stack(sources, space, relative_base(base, new), tuple(linears)).write(new)
        return check(base_folder, mixture(sources), new, len(sources), computing or Computing(), stage)


def stack(sources: Sequence[LoraAdapter], space: PreferenceSpace, base: str, linears: Sequence[str]) -> Adapter:
    """The steerable adapter: every source's columns one after another, as many as its largest rank.

    Factors keep their numbers: they are stored in a dtype that holds all of them, E in float32.
    """
    columns = [index for index, source in enumerate(sources) for _ in range(source.rank)]
    starts = [columns.index(index) for index in range(len(sources))]
    found = {tensor.dtype for source in sources for factors in source.modules.values() for tensor in factors[:2]}
    dtype = found.pop() if len(found) == 1 else torch.float32
    modules: dict[str, LowRank] = {}
    for name in dict.fromkeys(name for source in sources for name in source.modules):
        present = [
            (start, source.modules[name])
            for start, source in zip(starts, sources, strict=True)
            if name in source.modules
        ]
        inputs, outputs = present[0][1].a.shape[1], present[0][1].b.shape[0]
        a = torch.zeros(len(columns), inputs, dtype=dtype)
        b = torch.zeros(outputs, len(columns), dtype=dtype)
        e = torch.zeros(len(columns))
        for start, (factor_a, factor_b, scale) in present:
            end = start + len(factor_a)
            a[start:end], b[:, start:end], e[start:end] = factor_a, factor_b, scale
        modules[name] = LowRank(a, b, e)
    return Adapter(AdapterConfig(base, 1.0, target_names(modules, linears), tuple(columns), space), modules)


def mixture(sources: Sequence[LoraAdapter]) -> dict[str, Change]:
    """The change that the adapters, mixed by weight, add to each layer, by LoRA's own formula."""

    def change(name: str) -> Change:
        def add(x: torch.Tensor, preference: Preference) -> torch.Tensor:
            return sum(
                (
                    weight * lora_output(source.modules[name], x)
                    for source, weight in zip(sources, preference, strict=True)
                    if name in source.modules
                ),
                start=x.new_zeros(()),
            )

        return add

    return {name: change(name) for name in dict.fromkeys(name for source in sources for name in source.modules)}


def common_base(sources: Sequence[LoraAdapter]) -> Path | str:
    """The base that all adapters name. Raises `CheckpointError` if one names no base, or they name different ones."""
    bases = [named_base(source) for source in sources]
    for source, base in zip(sources, bases, strict=True):
        if base != bases[0]:
            raise CheckpointError(
                f"the adapters have different base models: {sources[0].folder} has {bases[0]}, {source.folder} has "
                f"{base}; if these are the same weights, name them with --model"
            )
    return bases[0]


def named_base(source: LoraAdapter) -> Path | str:
    """The base that an adapter names: a local folder, relative to the adapter's or to the current one, or a hub id."""
    if not source.base_model:
        raise CheckpointError(f"{source.folder} does not name its base model: name it with --model")
    if source.revision not in ("", "main"):
        raise CheckpointError(
            f"{source.folder} is of {source.base_model} at revision {source.revision}: download that, and name its "
            "folder with --model"
        )
    for path in (source.folder / source.base_model, Path(source.base_model).expanduser()):
        if path.is_dir():
            return path.resolve()
    return source.base_model

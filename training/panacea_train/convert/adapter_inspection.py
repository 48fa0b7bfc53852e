"""The content of an adapter: its columns, and how much each group of columns adds to each weight."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table

from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import SHARED, AdapterConfig

_LAYER = re.compile(r"(?:^|.*?\.)(?P<layer>\d+)\.(?P<kind>.+)")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHARED_GROUP = "(shared)"
"""No dimension can have this name."""
_MOST_VALUES = 8


@dataclass(frozen=True)
class InspectedModule:
    """One adapted weight."""

    name: str
    layer: int | None
    """The first number in its name."""
    kind: str
    """The part of its name after that number, such as self_attn.q_proj."""
    shape: tuple[int, int]
    """(in, out)"""
    e: list[float]
    """E of each column, as the file has it."""
    singular_values: Mapping[str, list[float]]
    """By group of columns, largest first: those of scaling * B diag(E) A over the group, its change at weight 1."""


@dataclass(frozen=True)
class Inspection:
    """The content of an adapter. Its groups of columns are the shared ones and each dimension's, if it has any."""

    folder: Path
    config: AdapterConfig
    groups: Mapping[str, list[int]]
    """Their columns."""
    modules: list[InspectedModule]
    parameters: int
    dtypes: list[str]

    @classmethod
    def read(cls, folder: Path) -> "Inspection":
        """Inspects the adapter in `folder`. Raises `CheckpointError` as `Adapter.read` does."""
        adapter = Adapter.read(folder)
        config = adapter.config
        groups: dict[str, list[int]] = {}
        for index, column in enumerate(config.preference_columns):
            groups.setdefault(_SHARED_GROUP if column == SHARED else config.space.names[column], []).append(index)
        tensors = [tensor for low_rank in adapter.modules.values() for tensor in low_rank]
        return cls(
            folder,
            config,
            groups,
            [_inspected(name, low_rank, config.scaling, groups) for name, low_rank in adapter.modules.items()],
            sum(tensor.numel() for tensor in tensors),
            sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}),
        )

    @cached_property
    def layers(self) -> list[int | None]:
        """All layers, those without a number last."""
        found = {module.layer for module in self.modules}
        numbered = sorted(layer for layer in found if layer is not None)
        return [*numbered, *({None} & found)]

    @cached_property
    def kinds(self) -> list[str]:
        """All kinds of modules, in the order of the file."""
        return list(dict.fromkeys(module.kind for module in self.modules))

    def largest(self, group: str, layer: int | None, kind: str | None = None) -> float:
        """The largest singular value of `group` in `layer`, of modules of that kind; 0 where there is none."""
        return max(
            (
                module.singular_values[group][0]
                for module in self.modules
                if module.layer == layer and kind in (None, module.kind)
            ),
            default=0.0,
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        space = self.config.space
        return {
            "base_model": self.config.base_model,
            "scaling": self.config.scaling,
            "columns": dict(self.groups),
            "dimensions": [{"name": d.name, "description": d.description} for d in space.dimensions],
            "default_preference": space.as_dict(space.default),
            "presets": {name: space.as_dict(weights) for name, weights in space.presets.items()},
            "parameters": self.parameters,
            "dtypes": self.dtypes,
            "modules": {
                module.name: {
                    "in": module.shape[0],
                    "out": module.shape[1],
                    "E": module.e,
                    "singular_values": dict(module.singular_values),
                }
                for module in self.modules
            },
        }


def _inspected(name: str, low_rank: LowRank, scaling: float, groups: Mapping[str, list[int]]) -> InspectedModule:
    match = _LAYER.fullmatch(name)
    a, b, e = (tensor.double() for tensor in low_rank)
    return InspectedModule(
        name,
        int(match["layer"]) if match else None,
        match["kind"] if match else name,
        (a.shape[1], b.shape[0]),
        e.tolist(),
        {
            group: _singular_values(a[columns], b[:, columns] * e[columns] * scaling)
            for group, columns in groups.items()
        },
    )


def _singular_values(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Singular values of b a without the product: an orthonormal basis on either side does not change them."""
    _, inner_b = torch.linalg.qr(b)
    _, inner_a = torch.linalg.qr(a.t())
    values: list[float] = torch.linalg.svdvals(inner_b @ inner_a.t()).tolist()
    return values


def table(inspection: Inspection, *, by_module: bool = False) -> RenderableType:
    """The inspection for a terminal: a summary, and a row for each layer or module."""
    summary = Table.grid(padding=(0, 2))
    for name, value in _summary(inspection).items():
        summary.add_row(name, value)
    if by_module:
        return Group(
            summary, "\nWhat each group of columns adds at weight 1: its singular values", _module_rows(inspection)
        )
    title = "\nWhat each group of columns adds at weight 1: its largest singular value"
    return Group(summary, title, _layer_rows(inspection))


def _layer_rows(inspection: Inspection) -> Table:
    """The largest singular value in each layer, with a bar of its height."""
    rows = Table("layer")
    for group in inspection.groups:
        rows.add_column(group, justify="right")
    top = max(values[0] for module in inspection.modules for values in module.singular_values.values()) or 1.0
    for layer in inspection.layers:
        values = [inspection.largest(group, layer) for group in inspection.groups]
        bars = [_BLOCKS[round(value / top * (len(_BLOCKS) - 1))] for value in values]
        cells = [f"{value:#.3g} {bar}" for value, bar in zip(values, bars, strict=True)]
        rows.add_row("none" if layer is None else str(layer), *cells)
    return rows


def _module_rows(inspection: Inspection) -> Table:
    """The singular values of each module, the largest ones if there are many."""
    rows = Table("module", "in → out")
    for group in inspection.groups:
        rows.add_column(group)
    for module in inspection.modules:
        cells: list[str] = []
        for values in module.singular_values.values():
            more = " …" if len(values) > _MOST_VALUES else ""
            cells.append(" ".join(f"{value:#.3g}" for value in values[:_MOST_VALUES]) + more)
        rows.add_row(module.name, "{} → {}".format(*module.shape), *cells)
    return rows


def _summary(inspection: Inspection) -> dict[str, str]:
    config, space = inspection.config, inspection.config.space
    parts = [f"{len(columns)} {group}" for group, columns in inspection.groups.items()]
    described = [f"{d.name} ({d.description})" if d.description else d.name for d in space.dimensions]
    layers = [layer for layer in inspection.layers if layer is not None]
    return {
        "adapter": str(inspection.folder),
        "base": config.base_model,
        "dimensions": ", ".join(described) or "none",
        "default": ", ".join(f"{name} {weight:.3g}" for name, weight in space.as_dict(space.default).items()),
        "presets": ", ".join(space.presets) or "none",
        "columns": f"{config.rank}: {', '.join(parts)}",
        "scaling": f"{config.scaling:g}",
        "modules": f"{len(inspection.modules)} in {len(layers)} layers: {', '.join(inspection.kinds)}",
        "parameters": f"{inspection.parameters:,} ({', '.join(inspection.dtypes)})",
    }

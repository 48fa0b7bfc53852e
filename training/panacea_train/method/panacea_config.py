"""The config of a Panacea adapter as a peft config; `panacea.model.adapter_config` is its form on disk."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft.config import PeftConfig

from panacea.errors import CheckpointError, ConfigError, PreferenceError
from panacea.model.adapter_config import FORMAT_VERSION, SHARED, AdapterConfig
from panacea.preference import Dimension, PreferenceSpace

PEFT_TYPE = "PANACEA"

PAPER_SHARED_COLUMNS = 8
PAPER_SCALING = 512.0
"""Divided by the number of shared columns, it is the factor of B diag(E w) A (arXiv 2402.02030)."""

ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices that the paper adapts, under the names that Llama, Mistral, Qwen2, Qwen3, Gemma and others give them."""


@dataclass
class PanaceaConfig(PeftConfig):
    """A Panacea adapter: W(preference) = W0 + scaling * B diag(E * w(preference)) A (arXiv 2402.02030).

    Give either the number of columns that all preferences share (`shared_columns`, the paper's k = 8), or the list
    `preference_columns`. With `shared_columns`, every dimension gets one column after them.

    Raises `ConfigError` for contradicting values, and `PreferenceError` for dimensions or weights that do not make a
    preference space.
    """

    format_version: int = FORMAT_VERSION
    r: int | None = None
    """Number of all columns; derived from the columns."""
    scaling: float | None = None
    """The factor of the product, already divided; None is the paper's 512 / k."""
    target_modules: Sequence[str] | str | None = None
    """The linear layers to adapt, as in peft: last parts of their names, a regular expression for whole names, or
    "all-linear". None is all attention and MLP matrices of Llama-like models."""
    preference_columns: Sequence[int] | None = None
    """For each column -1 (shared) or the index of its dimension."""
    preference_dimensions: Sequence[Mapping[str, str] | Dimension | str] = ()
    """The dimensions: names, `Dimension`s, or {"name", "description"}; stored in the last form."""
    default_preference: Sequence[float] = ()
    """Used if no preference is set; () is equal weights."""
    presets: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    example_prompts: Sequence[str] = ()

    # The fields below are not written to the file.
    shared_columns: int | None = None
    initializer_std: float = 0.02
    """Standard deviation of A's and B's first values (paper: 0.02); E starts at 0."""
    one_scale_per_matrix: bool = True
    """Train the paper's one scalar s for all preference columns of a matrix; False: a singular value for each column.
    Set to False automatically for an adapter from disk whose preference columns differ."""
    relative_base: bool = False
    """Write a local `base_model_name_or_path` relative to the adapter's folder."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]  # peft leaves it without types
        self.peft_type = PEFT_TYPE
        self.base_model_name_or_path = self.base_model_name_or_path or None
        dimensions = [_as_dimension(entry) for entry in self.preference_dimensions]
        self.preference_dimensions = [{"name": d.name, "description": d.description} for d in dimensions]
        if not self.default_preference and dimensions:
            self.default_preference = [1.0 / len(dimensions)] * len(dimensions)
        self._settle_columns(len(dimensions))
        self.target_modules = ATTENTION_AND_MLP if self.target_modules is None else self.target_modules
        try:
            on_disk = self.on_disk("")
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        self.default_preference = list(on_disk.space.default)
        self.presets = {name: list(weights) for name, weights in on_disk.space.presets.items()}
        self.example_prompts = list(on_disk.space.example_prompts)

    def _settle_columns(self, dimensions: int) -> None:
        if self.preference_columns is None:
            shared = PAPER_SHARED_COLUMNS if self.shared_columns is None else self.shared_columns
            self.preference_columns = [SHARED] * shared + list(range(dimensions))
        columns = self.preference_columns = list(self.preference_columns)
        shared = columns.count(SHARED)
        if self.shared_columns not in (None, shared):
            raise ConfigError(f"shared_columns is {self.shared_columns}, but preference_columns has {shared}")
        if self.r not in (None, len(columns)):
            raise ConfigError(f"r is {self.r}, but there are {len(columns)} columns")
        self.shared_columns, self.r = shared, len(columns)
        if len(columns) - shared <= 1:
            # A single preference column has its own singular value anyway.
            self.one_scale_per_matrix = False
        if self.scaling is None:
            if shared == 0:
                raise ConfigError("without shared columns the scaling must be set (the paper's is 512 / their number)")
            self.scaling = PAPER_SCALING / shared

    @property
    def columns(self) -> list[int]:
        """`preference_columns` as a list."""
        assert self.preference_columns is not None
        return list(self.preference_columns)

    @property
    def space(self) -> PreferenceSpace:
        """The preference space. Raises `PreferenceError` if names or weights do not make one."""
        return PreferenceSpace(
            dimensions=tuple(_as_dimension(entry) for entry in self.preference_dimensions),
            default=tuple(self.default_preference),
            presets={name: tuple(weights) for name, weights in self.presets.items()},
            example_prompts=tuple(self.example_prompts),
        )

    def on_disk(self, base_model: str) -> AdapterConfig:
        """The part of this config that is written, with `base_model` as the base's name.

        Raises `CheckpointError` and `PreferenceError` if a server would refuse it.
        """
        assert self.scaling is not None
        assert self.target_modules is not None
        targets = self.target_modules
        if not isinstance(targets, str):
            # peft may have made it a set, whose order varies between runs.
            targets = tuple(sorted(targets) if isinstance(targets, set) else targets)
        return AdapterConfig(base_model, self.scaling, targets, tuple(self.columns), self.space)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes `adapter_config.json` with exactly the format's keys.

        `kwargs` are peft's (`auto_mapping_dict`); the format does not have them.
        """
        folder = Path(save_directory)
        base = self.base_model_name_or_path
        if self.relative_base and base is not None and Path(base).is_dir():
            base = Path(os.path.relpath(base, folder)).as_posix()
        self.on_disk(base or "").write(folder)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], subfolder: str | None = None, **kwargs: Any
    ) -> "PanaceaConfig":
        """Reads `adapter_config.json` from a folder or from the hub. A relative base path becomes absolute, so that it
        does not depend on the working directory, and becomes relative again when saved.

        Raises `CheckpointError` for a local file that a server would refuse.
        """
        folder = Path(pretrained_model_name_or_path, subfolder or "")
        if folder.is_dir():
            AdapterConfig.read(folder)
        config = super().from_pretrained(str(pretrained_model_name_or_path), subfolder=subfolder, **kwargs)
        assert isinstance(config, PanaceaConfig)
        base = config.base_model_name_or_path
        if base is not None and not Path(base).is_absolute() and (folder / base).is_dir():
            config.base_model_name_or_path = str((folder / base).resolve())
            config.relative_base = True
        return config


def _as_dimension(entry: Mapping[str, str] | Dimension | str) -> Dimension:
    if isinstance(entry, Dimension):
        return entry
    if isinstance(entry, str):
        return Dimension(entry)
    if unknown := set(entry) - {"name", "description"}:
        raise PreferenceError(f"a dimension has a name and a description, not {', '.join(sorted(unknown))}")
    if "name" not in entry:
        raise PreferenceError("a dimension has no name")
    return Dimension(entry["name"], entry.get("description", ""))

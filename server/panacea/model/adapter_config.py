"""`adapter_config.json` of a Panacea adapter: its columns and its preference space. This module does not import torch.

The fields are peft_type "PANACEA", format_version 1, base_model_name_or_path, task_type "CAUSAL_LM", r, scaling,
target_modules, preference_columns, preference_dimensions, default_preference, presets (optional), and
example_prompts (optional).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import regex

from panacea.errors import CheckpointError, PreferenceError, first_line
from panacea.preference import Dimension, Preference, PreferenceSpace

CONFIG_FILE = "adapter_config.json"
FORMAT_VERSION = 1
MOST_COLUMNS = 4096
MOST_PRESETS = 1000
"""More columns or presets are not taken for an adapter's: they would only cost time and memory."""
_PATIENCE_S = 0.5
"""Most time for one match of `target_modules`. A regular expression of a few characters can take years."""
_FOREIGN = (
    "use_dora", "use_rslora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform",
    "layer_replication", "fan_in_fan_out", "trainable_token_indices", "target_parameters", "exclude_modules",
)  # fmt: skip
"""Settings of other methods of peft, which change what an adapter computes. A Panacea adapter has none of them."""
SHARED = -1
"""Entry of `preference_columns` for a shared column, which has weight 1 at every preference."""


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter's description without its tensors.

    The constructor raises `CheckpointError` if the values contradict each other.
    """

    base_model: str
    """Hub id or path of the base. A relative path is resolved against the adapter's folder if it exists there."""
    scaling: float
    """The factor in W0 + scaling * B diag(E w) A, after any division that the method makes."""
    target_modules: tuple[str, ...] | str
    """Module names or their last parts, or one regular expression for full names (peft's rule)."""
    preference_columns: tuple[int, ...]
    """Per column of the adapter: -1 if shared, else the index of the dimension whose weight scales it."""
    space: PreferenceSpace

    def __post_init__(self) -> None:
        if not self.preference_columns:
            raise CheckpointError("preference_columns is empty: an adapter has at least one column")
        for name, count, most in (
            ("preference_columns", self.rank, MOST_COLUMNS),
            ("presets", len(self.space.presets), MOST_PRESETS),
        ):
            if count > most:
                raise CheckpointError(f"{name} has {count} entries; at most {most} are read")
        if not (math.isfinite(self.scaling) and self.scaling != 0):
            raise CheckpointError("scaling must be a finite number other than 0")
        dimensions = len(self.space.dimensions)
        for column in self.preference_columns:
            if not SHARED <= column < dimensions:
                raise CheckpointError(
                    f"preference_columns holds {column}: an entry is -1 or the index of one of {dimensions} dimensions"
                )
        used = set(self.preference_columns)
        unused = [name for i, name in enumerate(self.space.names) if i not in used]
        if unused:
            raise CheckpointError(f"dimension {unused[0]!r} has no effect: preference_columns assigns no column to it")
        if not self.target_modules:
            raise CheckpointError("target_modules is empty")
        if isinstance(self.target_modules, str):
            try:
                regex.compile(self.target_modules)
            except (regex.error, RecursionError) as error:
                problem = first_line(error)
                raise CheckpointError(f"target_modules is not a valid regular expression: {problem}") from None

    @property
    def rank(self) -> int:
        return len(self.preference_columns)

    def base_of(self, folder: Path) -> Path | str:
        """The base model of the adapter in `folder`: a local folder if it exists, else a hub id.

        Raises `CheckpointError` if the adapter names no base, or names a path that does not exist.
        """
        if not self.base_model:
            raise CheckpointError("the adapter does not name its base model; pass it with --model")
        path = folder / self.base_model
        try:
            if path.is_dir():
                return path
        except OSError as error:  # older Pythons raise for a name that is too long
            raise CheckpointError(f"the adapter's base_model_name_or_path is no path: {error.strerror}") from None
        if self.base_model.startswith((".", "/", "~")):
            raise CheckpointError(f"the adapter's base model {path} does not exist; pass another one with --model")
        return self.base_model

    def targets(self, module: str) -> bool:
        """Whether the module with this full dotted name is adapted (peft's rule)."""
        if isinstance(self.target_modules, str):
            try:
                return regex.fullmatch(self.target_modules, module, timeout=_PATIENCE_S) is not None
            except TimeoutError:
                raise CheckpointError("target_modules is a regular expression that takes too long") from None
        return any(module == target or module.endswith("." + target) for target in self.target_modules)

    def column_weights(self, preference: Preference | None) -> list[float]:
        """The row of the preference table, (r,), for `preference`. None gives zeros, which is the bare base."""
        if preference is None:
            return [0.0] * self.rank
        return [1.0 if column == SHARED else preference[column] for column in self.preference_columns]

    @classmethod
    def read(cls, folder: Path) -> "AdapterConfig":
        """Reads and checks `folder`/adapter_config.json. Raises `CheckpointError` that names the file and the field."""
        path = folder / CONFIG_FILE
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} cannot be read: it is not a file")
        try:
            content: object = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{folder} is not an adapter folder: {CONFIG_FILE} is missing") from None
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} is not a JSON object")
        try:
            return cls._parse(cast("dict[str, Any]", content))
        except (CheckpointError, PreferenceError) as error:
            raise CheckpointError(f"{path}: {error}") from None

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> "AdapterConfig":
        peft_type = content.get("peft_type")
        if peft_type != "PANACEA":
            hint = ": only Panacea's method is served; LoRA adapters can be converted"
            if peft_type == "LORA":
                hint = ": `panacea convert soup` turns LoRA adapters into a Panacea adapter"
            raise CheckpointError(f"peft_type is {repr(peft_type)[:40]}, not 'PANACEA'{hint}")
        if content.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(f"format_version must be {FORMAT_VERSION}, the only one that this server reads")
        if content.get("task_type", "CAUSAL_LM") != "CAUSAL_LM":
            raise CheckpointError("task_type must be 'CAUSAL_LM'")
        foreign = [name for name in _FOREIGN if content.get(name)]
        if content.get("bias") not in (None, "none"):
            foreign.append("bias")
        if foreign:
            raise CheckpointError(f"{foreign[0]} is set: it belongs to another method, and would have no effect here")
        dimensions = tuple(
            Dimension(_field(d, "name", str), _field(d, "description", str, ""))
            for d in _list(content, "preference_dimensions", dict)
        )
        names = tuple(d.name for d in dimensions)
        presets = _field(content, "presets", dict, None) or {}
        config = cls(
            base_model=_field(content, "base_model_name_or_path", str),
            scaling=_number(content, "scaling"),
            target_modules=(
                content["target_modules"]
                if isinstance(content.get("target_modules"), str)
                else tuple(_list(content, "target_modules", str))
            ),
            preference_columns=tuple(_list(content, "preference_columns", int)),
            space=PreferenceSpace(
                dimensions,
                default=tuple(_weights(content.get("default_preference"), "default_preference", len(names))),
                presets={
                    name: tuple(_weights(weights, f"presets.{name}", len(names))) for name, weights in presets.items()
                },
                example_prompts=tuple(_list(content, "example_prompts", str, optional=True)),
            ),
        )
        if _field(content, "r", int) != config.rank:
            raise CheckpointError(f"r is {content['r']}, but preference_columns has {config.rank} entries")
        return config

    def write(self, folder: Path) -> None:
        """Writes `folder`/adapter_config.json. Reading it back gives an equal config."""
        content = {
            "peft_type": "PANACEA",
            "format_version": FORMAT_VERSION,
            "base_model_name_or_path": self.base_model,
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "scaling": self.scaling,
            "target_modules": self.target_modules,
            "preference_columns": self.preference_columns,
            "preference_dimensions": [{"name": d.name, "description": d.description} for d in self.space.dimensions],
            "default_preference": self.space.default,
            "presets": self.space.presets,
            "example_prompts": self.space.example_prompts,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


_REQUIRED: Any = object()


def _field(content: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
    value = content.get(name, default)
    if value is _REQUIRED:
        raise CheckpointError(f"{name} is missing")
    if value is default:
        return value
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CheckpointError(f"{name} has the wrong type")
    return value


def _number(content: dict[str, Any], name: str) -> float:
    try:
        return float(_field(content, name, (int, float)))
    except OverflowError:
        return math.inf  # a JSON integer may exceed the range of a float


def _list(content: dict[str, Any], name: str, kind: type, *, optional: bool = False) -> list[Any]:
    values = _field(content, name, list, None if optional else _REQUIRED)
    if any(not isinstance(value, kind) or isinstance(value, bool) for value in values or ()):
        raise CheckpointError(f"{name} has an entry of the wrong type")
    return values or []


def _weights(value: object, name: str, count: int) -> list[float]:
    """A stored preference of `count` numbers. `PreferenceSpace` checks their values."""
    if not isinstance(value, list) or len(value) != count:
        raise CheckpointError(f"{name} must be {count} numbers, one per dimension")
    return value

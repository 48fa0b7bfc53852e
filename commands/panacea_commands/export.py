"""`panacea export`: its options, and what it prints."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from panacea.config import DType
from panacea.preference import Preference, PreferenceSpace
from panacea_commands.convert import OutputOptions
from panacea_commands.option_sources import FIELDS, new_app
from panacea_commands.option_values import read_weights

export_app = new_app("export")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `panacea export` writes."""

    adapter: str
    """The adapter: a folder or a hub id."""
    form: Annotated[Literal["lora", "merged"], Parameter(name="--as")]
    """lora: an ordinary LoRA adapter. merged: the whole model with changed weights."""
    preference: Annotated[str | None, Parameter(metavar="NAME=w,NAME=w")] = None
    """The preference: weights by name, w,w for all dimensions, or a preset's name. Default: the adapter's default."""
    model: str | None = None
    """Base model: a folder or a hub id. Default: the adapter's own base."""
    dtype: DType = "auto"
    """Number format that is written. auto: float32 for LoRA, the base's own for merged weights."""


@export_app.default
def export(*, options: Annotated[ExportOptions, FIELDS], output: Annotated[OutputOptions, FIELDS]) -> None:
    """Write an adapter at one preference as an ordinary model, for vLLM, llama.cpp or other programs.

    The model is a LoRA adapter, or the whole model with changed weights:

        panacea export --adapter ./soup --preference helpful=0.7,concise=0.3 --as lora --out ./lora
        panacea export --adapter ./soup --preference helpful=0.7,concise=0.3 --as merged --out ./model

    The result is checked before it appears: transformers loads it, and its logits are compared with the engine's.
    """
    from panacea.model.adapter_config import AdapterConfig
    from panacea.model.hub import local_folder
    from panacea_train.convert.adapter_export import export_adapter

    folder = local_folder(options.adapter)
    space = AdapterConfig.read(folder).space
    chosen = _chosen(space, options.preference)
    written = export_adapter(
        folder,
        output.out,
        options.form,
        preference=chosen,
        model=options.model,
        dtype=options.dtype,
        overwrite=output.overwrite,
        computing=output.computing,
    )
    weights = ", ".join(f"{name} {weight:.4g}" for name, weight in space.as_dict(chosen).items())
    print(f"{output.out} is the adapter at {weights or 'its only state'}, in {written.dtype}.\n{written.agreement}")


def _chosen(space: PreferenceSpace, text: str | None) -> Preference:
    """The preference that `text` means: the default, a preset or weights."""
    if text is None:
        return space.default
    return space.presets[text] if text in space.presets else space.resolve(read_weights("--preference", text))

"""`panacea convert`: its options, and what it prints."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from panacea.config import Device, DType
from panacea.errors import ConfigError
from panacea_commands.option_sources import FIELDS, new_app
from panacea_commands.option_values import read_weights

if TYPE_CHECKING:
    from panacea_train.convert.agreement import Computing

convert_app = new_app("convert", help="Make adapters for this server from other checkpoints.")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where a new model is written, and how its check computes."""

    out: Annotated[Path, Parameter(metavar="DIR")]
    """The new folder. It appears only when it is complete."""
    overwrite: bool = False
    """Replace --out, if that is an adapter or a model, once the new one is complete."""
    check_device: Device = "auto"
    """Where the check computes. auto: CUDA if there is a GPU, else the CPU."""
    check_dtype: DType = "float32"
    """Number format of the check. 16 bits need half the memory and show fewer small errors."""

    @property
    def computing(self) -> "Computing":
        from panacea_train.convert.agreement import Computing

        return Computing(self.check_device, self.check_dtype)


@dataclass(frozen=True, kw_only=True)
class SoupOptions:
    """What `panacea convert soup` makes."""

    adapter: Annotated[tuple[str, ...], Parameter(metavar="NAME=DIR")]
    """A dimension's name and its LoRA adapter, a folder or a hub id. Two to ten times."""
    model: str | None = None
    """Base model: a folder or a hub id. Default: the base that all adapters name."""
    default: Annotated[str | None, Parameter(metavar="NAME=w,NAME=w")] = None
    """Preference of requests that give none. Default: equal weights."""


@convert_app.command
def soup(*, options: Annotated[SoupOptions, FIELDS], output: Annotated[OutputOptions, FIELDS]) -> None:
    """Make one steerable adapter from ordinary LoRA adapters: each becomes a dimension (rewarded soups).

    Name each adapter's dimension:

        panacea convert soup --adapter helpful=./lora-a --adapter concise=./lora-b --out ./soup

    The result is exact, and it is checked before it appears. The check compares logits at three preferences: the LoRA
    adapters in transformers with the result in the engine. It holds the base model in memory, in --check-dtype.
    """
    from panacea.model.hub import local_folder
    from panacea_train.convert.soup import convert_soup

    folders: dict[str, Path] = {}
    for text in options.adapter:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--adapter {text}: write NAME=DIR, a dimension's name and a LoRA adapter")
        if name in folders:
            raise ConfigError(f"--adapter {text}: the dimension {name} has an adapter already; give each name once")
        folders[name] = local_folder(folder)
    agreement = convert_soup(
        folders,
        output.out,
        model=options.model,
        default=None if options.default is None else read_weights("--default", options.default),
        overwrite=output.overwrite,
        computing=output.computing,
    )
    print(f"{agreement}\nNow: panacea serve --adapter {output.out}")


@dataclass(frozen=True, kw_only=True)
class ThirdPartyOptions:
    """What `panacea convert third-party` makes."""

    dimension: Annotated[tuple[str, ...], Parameter(metavar="NAME")] = ()
    """A dimension's name, in the checkpoint's order. May be repeated. Default: the names in its config."""
    factor: float | None = None
    """The output multiplier, alpha / r. Default: from the checkpoint's config."""
    default: Annotated[str | None, Parameter(metavar="NAME=w,NAME=w")] = None
    """Preference of requests that give none. Default: equal weights."""


@convert_app.command
def third_party(
    source: Annotated[Path, Parameter(name="DIR", help="The checkpoint: base and adapter in one folder.")],
    /,
    *,
    options: Annotated[ThirdPartyOptions, FIELDS] = ThirdPartyOptions(),
    output: Annotated[OutputOptions, FIELDS],
) -> None:
    """Split a Panacea model that another public implementation has saved, into OUT/base and OUT/adapter.

    Name the dimensions if the checkpoint does not:

        panacea convert third-party ./checkpoint --dimension helpful --dimension harmless --out ./mine
        panacea serve --adapter ./mine/adapter

    Two layouts are known: lora_right_weight, lora_left_weight, lora_diagonal_weight, pref_scaling; and lora_A, lora_B,
    lora_diag, pref_scaling with preference columns in blocks. The result is checked as by "convert soup".
    """
    from panacea_train.convert.third_party import convert_third_party

    if options.factor is not None and not (math.isfinite(options.factor) and options.factor != 0):
        raise ConfigError(f"--factor is {options.factor}, but must be a finite number other than 0")
    agreement = convert_third_party(
        source,
        options.dimension,
        output.out,
        factor=options.factor,
        default=None if options.default is None else read_weights("--default", options.default),
        overwrite=output.overwrite,
        computing=output.computing,
    )
    print(f"{agreement}\nNow: panacea serve --adapter {output.out / 'adapter'}")

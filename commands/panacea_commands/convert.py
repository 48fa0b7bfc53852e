"""`panacea convert`, `panacea inspect` and `panacea export`: their options, and what they print."""

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from panacea.config import Device, DType
from panacea.errors import ConfigError
from panacea.preference import Preference, PreferenceSpace
from panacea_commands.option_values import check_writable, read_weights

convert_app = typer.Typer(help="Make adapters for this server of other checkpoints.", no_args_is_help=True)

_Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="The new folder. It appears as a whole or not at all.")
]
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace --out, if that is an adapter or a model, once the new is complete.")
]
_Default = Annotated[
    str | None,
    typer.Option(
        "--default",
        metavar="NAME=w,NAME=w",
        help="The preference of requests that bring none. Default: equal weights.",
    ),
]
_CheckDevice = Annotated[Device, typer.Option("--check-device", help="What the check computes on.")]
_CheckDType = Annotated[
    DType,
    typer.Option(
        "--check-dtype", help="What the check computes in. 16 bits need half the memory and see small errors less."
    ),
]


@convert_app.command("soup")
def convert_soup(
    adapter: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=DIR",
            help="A dimension's name and the LoRA adapter for it, a folder or a hub id. Two to ten times.",
        ),
    ],
    out: _Out,
    model: Annotated[
        str | None, typer.Option(help="Base model: a folder or a hub id. Default: the one all adapters name.")
    ] = None,
    default: _Default = None,
    overwrite: _Overwrite = False,
    check_device: _CheckDevice = "auto",
    check_dtype: _CheckDType = "float32",
) -> None:
    """Make one steerable adapter of ordinary LoRA adapters: each becomes a dimension, mixed by weight (rewarded soups).

        panacea convert soup --adapter helpful=./lora-a --adapter concise=./lora-b --out ./soup

    The result is exact. It is checked before it is there: logits at three preferences, of the LoRA adapters by
    transformers and of the result by the engine. The check holds the base model in memory, in --check-dtype.
    """
    from panacea.model.hub import local_folder
    from panacea_train.convert.agreement import Computing
    from panacea_train.convert.soup import convert_soup as run

    folders: dict[str, Path] = {}
    for text in adapter:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--adapter {text}: write NAME=DIR, a dimension's name and a LoRA adapter")
        if name in folders:
            raise ConfigError(f"--adapter: there are two adapters for {name}")
        folders[name] = local_folder(folder)
    agreement = run(
        folders,
        out,
        model=model,
        default=None if default is None else read_weights("--default", default),
        overwrite=overwrite,
        computing=Computing(check_device, check_dtype),
    )
    typer.echo(f"{agreement}\nNow: panacea serve --adapter {out}")


@convert_app.command("third-party")
def convert_third_party(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The checkpoint: base and adapter in one.")],
    out: _Out,
    dimension: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A dimension's name, in the checkpoint's order. Default: as its config names them."
        ),
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(help="The output multiplier, alpha / r. Default: as the checkpoint's config tells."),
    ] = None,
    default: _Default = None,
    overwrite: _Overwrite = False,
    check_device: _CheckDevice = "auto",
    check_dtype: _CheckDType = "float32",
) -> None:
    """Take a Panacea model that another public implementation has saved apart: OUT/base and OUT/adapter.

        panacea convert third-party ./checkpoint --dimension helpful --dimension harmless --out ./mine
        panacea serve --adapter ./mine/adapter

    Two layouts are known: lora_right_weight, lora_left_weight, lora_diagonal_weight, pref_scaling; and lora_A, lora_B,
    lora_diag, pref_scaling with preference columns in blocks. The result is checked as that of "convert soup".
    """
    from panacea_train.convert.agreement import Computing
    from panacea_train.convert.third_party import convert_third_party as run

    if factor is not None and not (math.isfinite(factor) and factor != 0):
        raise ConfigError("--factor must be a finite number other than 0")
    agreement = run(
        source,
        dimension or (),
        out,
        factor=factor,
        default=None if default is None else read_weights("--default", default),
        overwrite=overwrite,
        computing=Computing(check_device, check_dtype),
    )
    typer.echo(f"{agreement}\nNow: panacea serve --adapter {out / 'adapter'}")


def inspect_adapter(
    adapter: Annotated[str, typer.Argument(metavar="DIR", help="An adapter: a folder or a hub id.")],
    by_module: Annotated[bool, typer.Option("--modules", help="A row for each module instead of each layer.")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw it too: .svg, .png or .pdf. Needs matplotlib.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to this file too.")
    ] = None,
) -> None:
    """What is in an adapter: dimensions, columns, scaling, and how much each group of columns adds to each weight."""
    from rich.console import Console

    from panacea.model.hub import local_folder
    from panacea_train.convert.inspection import Inspection, table

    check_writable("--json", json_file)
    check_writable("--picture", picture)
    if picture is not None and picture.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--picture {picture}: the name must end in .svg, .png or .pdf")
    inspection = Inspection.read(local_folder(adapter))
    Console().print(table(inspection, by_module=by_module))
    if picture is not None:
        try:
            from panacea_train.convert.inspection_picture import draw
        except ImportError as error:
            raise ConfigError(f"--picture needs matplotlib: pip install 'panacea-server[plot]' ({error})") from None
        draw(inspection, picture)
    if json_file is not None:
        json_file.write_text(json.dumps(inspection.as_dict(), indent=1) + "\n", "utf-8")


def export_adapter(
    adapter: Annotated[str, typer.Option(help="The adapter: a folder or a hub id.")],
    form: Annotated[
        Literal["lora", "merged"],
        typer.Option("--as", help="lora: an ordinary LoRA adapter. merged: the whole model with changed weights."),
    ],
    out: _Out,
    preference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=w,NAME=w",
            help="Or w,w for all dimensions, or a preset's name. Default: the adapter's default.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model: a folder or a hub id. Default: the adapter's own base.")
    ] = None,
    dtype: Annotated[
        DType, typer.Option(help="What is written. auto: float32 for LoRA, the base's own for merged weights.")
    ] = "auto",
    overwrite: _Overwrite = False,
    check_device: _CheckDevice = "auto",
    check_dtype: _CheckDType = "float32",
) -> None:
    """Write an adapter at one preference as an ordinary model, for vLLM, llama.cpp or anything else.

        panacea export --adapter ./soup --preference helpful=0.7,concise=0.3 --as lora --out ./lora
        panacea export --adapter ./soup --preference helpful=0.7,concise=0.3 --as merged --out ./model

    Before it is there it is loaded by transformers, and its logits are compared with the engine's.
    """
    from panacea.model.adapter_config import AdapterConfig
    from panacea.model.hub import local_folder
    from panacea_train.convert.agreement import Computing
    from panacea_train.convert.export import export_adapter as run

    folder = local_folder(adapter)
    space = AdapterConfig.read(folder).space
    chosen = _chosen(space, preference)
    export = run(
        folder,
        out,
        form,
        preference=chosen,
        model=model,
        dtype=dtype,
        overwrite=overwrite,
        computing=Computing(check_device, check_dtype),
    )
    weights = ", ".join(f"{name} {weight:.4g}" for name, weight in space.as_dict(chosen).items())
    typer.echo(f"{out} is the adapter at {weights or 'its only state'}, in {export.dtype}.\n{export.agreement}")


def _chosen(space: PreferenceSpace, text: str | None) -> Preference:
    """The preference that `text` means: the default, a preset or weights."""
    if text is None:
        return space.default
    return space.presets[text] if text in space.presets else space.resolve(read_weights("--preference", text))

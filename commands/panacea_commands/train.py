"""`panacea train`: its options, and what it prints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from panacea.errors import ConfigError

SHOWN_PROBLEMS = 10

Objective = Literal["sft", "dpo"]
Aggregation = Literal["linear", "tchebycheff", "reward"]
DType = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu"]

train_app = typer.Typer(no_args_is_help=True, invoke_without_command=True)

_ADAPTER = "The adapter"
_OBJECTIVE = "What is learned"
_STEPS = "Steps"
_MACHINE = "Machine"

_Dimension = Annotated[
    list[str] | None,
    typer.Option(
        "--dimension",
        metavar="NAME",
        help="A dimension, in the adapter's order. May be repeated. Default: all in the data.",
    ),
]


@train_app.callback(
    epilog="docs/training.md shows the data formats and the formulas. `panacea train check FILE` looks at data alone."
)
def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Base model: a folder or a hub id.")] = None,
    data: Annotated[Path | None, typer.Option(help="Training data: a JSON Lines file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the adapter.")] = None,
    dimension: _Dimension = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out, or an interrupted run.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, to the same losses.")
    ] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    objective: Annotated[
        Objective,
        typer.Option(rich_help_panel=_OBJECTIVE, help="dpo learns from comparisons, sft imitates the best answers."),
    ] = "dpo",
    aggregation: Annotated[
        Aggregation,
        typer.Option(
            rich_help_panel=_OBJECTIVE,
            help="How dimensions become one: the weighted sum of their losses; the largest weighted loss; or, for sft, "
            "the answer with the largest weighted score (not the paper's).",
        ),
    ] = "linear",
    ideal: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_OBJECTIVE,
            metavar="z,z,...",
            help="Tchebycheff's ideal point: a lower bound of each dimension's loss. Default: 0.",
        ),
    ] = None,
    beta: Annotated[
        float,
        typer.Option(rich_help_panel=_OBJECTIVE, min=1e-6, help="DPO: how much to stay near the base."),
    ] = 0.3,
    sft_weight: Annotated[
        float,
        typer.Option(
            rich_help_panel=_OBJECTIVE,
            min=0,
            help="DPO: weight of an SFT term on preferred answers, without which text collapses.",
        ),
    ] = 0.1,
    label_temperature: Annotated[
        float,
        typer.Option(
            rich_help_panel=_OBJECTIVE,
            min=0,
            help="DPO on scores: a is better with probability sigmoid(difference / this). 0: always the higher score.",
        ),
    ] = 0.0,
    vertex_probability: Annotated[
        float,
        typer.Option(
            rich_help_panel=_OBJECTIVE,
            min=0,
            max=1,
            help="How often a single dimension has all the weight; else the preference is drawn from a Dirichlet "
            "distribution. The paper draws all from it.",
        ),
    ] = 0.3,
    dirichlet_alpha: Annotated[
        float,
        typer.Option(rich_help_panel=_OBJECTIVE, min=1e-3, help="1 is uniform; less is nearer to edges and vertices."),
    ] = 1.0,
    shared_columns: Annotated[
        int,
        typer.Option(rich_help_panel=_ADAPTER, min=0, help="k: columns that all preferences share. More learn more."),
    ] = 8,
    columns_per_dimension: Annotated[
        int, typer.Option(rich_help_panel=_ADAPTER, min=1, help="More than the paper's 1 steer more finely.")
    ] = 1,
    scaling: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_ADAPTER, min=1e-6, help="Factor before the product. Default: 512 / k, the paper's."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_ADAPTER,
            metavar="NAME",
            help="Last part of the names of modules to adapt, like q_proj. May be repeated. Default: all linear layers "
            "of attention and MLP.",
        ),
    ] = None,
    init_std: Annotated[
        float,
        typer.Option(rich_help_panel=_ADAPTER, min=1e-6, help="A and B start as N(0, this); E starts at 0."),
    ] = 0.02,
    scale_per_column: Annotated[
        bool,
        typer.Option(
            "--scale-per-column",
            rich_help_panel=_ADAPTER,
            help="A singular value for each preference column, instead of the paper's one for all of a matrix.",
        ),
    ] = False,
    default: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_ADAPTER,
            metavar="w,w,...",
            help="The preference of requests that bring none. Default: equal weights.",
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(rich_help_panel=_STEPS, min=1e-6, help="Passes over the data.")] = 1.0,
    steps: Annotated[int | None, typer.Option(rich_help_panel=_STEPS, min=1, help="Instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(rich_help_panel=_STEPS, min=1, help="Examples in a step.")] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(rich_help_panel=_STEPS, min=1e-9, help="Of A and B. Default: 1e-3 for dpo, 2e-3 for sft."),
    ] = None,
    singular_value_learning_rate: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_STEPS,
            min=1e-9,
            help="Of E, which needs far more than A and B. Default: 2e-2 for dpo, 3e-2 for sft.",
        ),
    ] = None,
    warmup_steps: Annotated[
        int, typer.Option(rich_help_panel=_STEPS, min=0, help="At most; never more than a tenth of all.")
    ] = 50,
    weight_decay: Annotated[float, typer.Option(rich_help_panel=_STEPS, min=0, help="Of A and B.")] = 0.0,
    held_out: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_STEPS,
            min=0,
            help="Lines to measure on and not to train on. Default: a twentieth, at most 64. 0: measure on others.",
        ),
    ] = None,
    health_steps: Annotated[
        int, typer.Option(rich_help_panel=_STEPS, min=1, help="Measure the preference gap so often.")
    ] = 50,
    save_steps: Annotated[int, typer.Option(rich_help_panel=_STEPS, min=1, help="Write a checkpoint so often.")] = 200,
    seed: Annotated[int, typer.Option(rich_help_panel=_STEPS, min=0, help="Same seed, same adapter.")] = 0,
    max_tokens: Annotated[
        int, typer.Option(rich_help_panel=_MACHINE, min=2, help="Leave out examples that are longer.")
    ] = 2048,
    accumulation: Annotated[
        int, typer.Option(rich_help_panel=_MACHINE, min=1, help="Forwards to split a step into, to save memory.")
    ] = 1,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            rich_help_panel=_MACHINE,
            help="Compute twice instead of keeping, to save memory.",
        ),
    ] = False,
    dtype: Annotated[
        DType,
        typer.Option(
            rich_help_panel=_MACHINE,
            help="Of the base. The adapter is always float32. auto: bfloat16 on a GPU, float32 on a CPU.",
        ),
    ] = "auto",
    device: Annotated[Device, typer.Option(rich_help_panel=_MACHINE)] = "auto",
) -> None:
    """Train an adapter for any causal language model, by the Panacea method (arXiv 2402.02030).

        panacea train --model ./my-model --data pairs.jsonl --out my-adapter

    Nothing is loaded before the data is found to be right. The adapter appears in --out when it is complete, and then:

        panacea serve --adapter my-adapter
    """
    if context.invoked_subcommand is not None:
        return
    for name, value in (("--model", model), ("--data", data), ("--out", out)):
        if value is None:
            raise ConfigError(f"{name} is missing; panacea train --help shows all options")
    assert model is not None
    assert data is not None
    assert out is not None
    ideal_point, default_preference = _numbers("--ideal", ideal), _numbers("--default", default)
    try:
        # The file first: what is wrong with it shows in the time that torch alone takes to be imported.
        from panacea_train.data import read_training_file, summarise

        file = read_training_file(data, dimension or ())
        _refuse(file.path, [str(problem) for problem in file.problems])
        from panacea_train.training_run import RunSettings, prepare_output, train_adapter
    except ImportError as error:
        raise _more_packages(error) from None
    settings = RunSettings(
        model=model,
        objective=objective,
        aggregation=aggregation,
        ideal=ideal_point,
        label_temperature=label_temperature,
        shared_columns=shared_columns,
        columns_per_dimension=columns_per_dimension,
        scaling=scaling,
        targets=tuple(target) if target else None,
        initializer_std=init_std,
        one_scale_per_matrix=not scale_per_column,
        default_preference=default_preference or (),
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=learning_rate,
        singular_value_learning_rate=singular_value_learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        beta=beta,
        sft_weight=sft_weight,
        vertex_probability=vertex_probability,
        dirichlet_alpha=dirichlet_alpha,
        held_out=held_out,
        max_tokens=max_tokens,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
        device=device,
        seed=seed,
        health_steps=health_steps,
        save_steps=save_steps,
    )
    settings.check(file.dimensions)
    out = out.expanduser().absolute()
    prepare_output(settings, file, out, overwrite=overwrite, resume=resume)
    _say(summarise(file))
    try:
        result = train_adapter(settings, file, out, tensorboard=tensorboard, report=_say)
    except KeyboardInterrupt:
        _say("Interrupted. The same command with --resume goes on from the last checkpoint.")
        raise typer.Abort from None
    for name, loss in result.vertex_losses.items():
        _say(f"loss of {name} where nothing else counts: {loss:.3f}")
    if result.preference_gap is not None:
        _say(f"gap between matched and mismatched preference: {result.preference_gap:.2f} nats per answer")
        if result.preference_gap < STEERS_NATS:
            _say("That is little: the adapter hardly steers. docs/training.md says what to try.")
    _say(f"Trained in {result.steps:,} steps. Now: panacea serve --adapter {out}")


STEERS_NATS = 0.5
"""In trials the gap was about 1.5 after 100 steps when an adapter came to steer, and 0.2 when it did not."""


@train_app.command("check")
def check(
    data: Annotated[Path, typer.Argument(help="Training data: a JSON Lines file.")],
    dimension: _Dimension = None,
) -> None:
    """Look at training data, and load no model: what is wrong, by line and field, and counts for each dimension."""
    try:
        from panacea_train.data import read_training_file, summarise
    except ImportError as error:
        raise _more_packages(error) from None
    file = read_training_file(data, dimension or ())
    _refuse(file.path, [str(problem) for problem in file.problems])
    typer.echo(summarise(file))


@train_app.command("demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for base, adapter and evaluation.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed on the same machine, same model.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; one is fastest unless the machine is idle.")] = 1,
) -> None:
    """Train the embedded demo model from nothing: tokenizer, base, adapter, evaluation. Under an hour on two cores.

    A run that was interrupted goes on where it stopped.
    """
    try:
        from panacea_lab.demo.demo_pipeline import train_demo as run
    except ImportError as error:
        raise _more_packages(error) from None
    run(out, seed, threads=threads)


def _refuse(path: Path, problems: list[str]) -> None:
    if not problems:
        return
    for problem in problems[:SHOWN_PROBLEMS]:
        _say(problem)
    more = f", of which the first {SHOWN_PROBLEMS} are shown" if len(problems) > SHOWN_PROBLEMS else ""
    raise ConfigError(f"{path} has {len(problems):,} problem{'s' * (len(problems) > 1)}{more}; nothing was loaded")


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text}: write numbers with commas between them, one per dimension") from None


def _more_packages(error: ImportError) -> ConfigError:
    return ConfigError(f"training needs more packages: pip install 'panacea-server[train]' ({error})")


def _say(text: str) -> None:
    typer.echo(text, err=True)

"""The trainer: what it minimises and with which rates, that it resumes exactly, and that it learns to steer."""

import json
import math
from dataclasses import replace
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import TrainerCallback

from panacea.errors import ConfigError
from panacea_train.answer_logprobs import reference_logprobs
from panacea_train.method import steered
from panacea_train.preference_gap import preference_gap, preference_probes
from panacea_train.trainer import PanaceaTrainer
from panacea_train.training_config import TrainingConfig
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair
from tests.train.tiny import PEFT_WARNING, adapted, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

# What each dimension wants to hear: one of three answers, to every prompt.
ANSWERS = ([10, 11, 12, 2], [20, 21, 2], [30, 2])
PAIRS: list[Example] = [
    PreferencePair([1, prompt], ANSWERS[a], ANSWERS[b], [1.0 if d == a else 0.0 if d == b else 0.5 for d in range(3)])
    for prompt in range(3, 9)
    for a in range(3)
    for b in range(3)
    if a != b
]
CANDIDATES: list[Example] = [
    Candidates([1, prompt], ANSWERS, [[float(d == a) for d in range(3)] for a in range(3)]) for prompt in range(3, 9)
]


class StopAfterStep5(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 5


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    return TrainingConfig(tmp_path / "run", steps=6, batch_size=4, warmup_steps=2, logging_steps=1, progress=False)


def losses(trainer: PanaceaTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def token_logprob(model: nn.Module, prompt: list[int], answer: list[int]) -> Tensor:
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return -F.cross_entropy(logits, torch.tensor(answer), reduction="sum")


def test_the_loss_is_the_formula_computed_pair_by_pair(config: TrainingConfig) -> None:
    model = adapted()
    shown = Demonstration([1, 2], [5, 6, 7], preference=(0.0, 0.5, 0.5))
    pairs = [PreferencePair([1, 2], [3, 4], [5], (0.9, 0.2, 0.5)), PreferencePair([9], [8], [7, 6, 5], (0.1, 0.6, 0.2))]
    trainer = PanaceaTrainer(model, [*pairs, shown], replace(config, batch_size=3, beta=0.4, sft_weight=0.3))
    batch = trainer.batches[0]
    dpo: list[Tensor] = []
    preferred_nll = preferred_tokens = torch.zeros(())
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        for row in range(2):
            pair = next(p for p in pairs if p.prompt_ids[0] == batch["forwards"][0]["input_ids"][row, 0])
            a, b = list(pair.answer_a_ids), list(pair.answer_b_ids)
            with steered(model, batch["preference"][row]):
                policy = [token_logprob(model, list(pair.prompt_ids), answer) for answer in (a, b)]
            with model.disable_adapter():
                reference = [token_logprob(model, list(pair.prompt_ids), answer) for answer in (a, b)]
            margin = 0.4 * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
            target = batch["preference"][row] @ torch.tensor(pair.probabilities)
            dpo.append(-target * F.logsigmoid(margin) - (1 - target) * F.logsigmoid(-margin))
            better = 0 if target > 0.5 else 1
            preferred_nll = preferred_nll - policy[better]
            preferred_tokens = preferred_tokens + len((a, b)[better])
        with steered(model, torch.tensor([0.0, 0.5, 0.5])):
            nll = -token_logprob(model, [1, 2], [5, 6, 7]) / 3
    expected = 2 / 3 * (sum(dpo) / 2 + 0.3 * preferred_nll / preferred_tokens) + 1 / 3 * nll
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [PAIRS, CANDIDATES], ids=["dpo", "sft"])
def test_learns_to_tell_preferences_apart(config: TrainingConfig, examples: list[Example]) -> None:
    torch.manual_seed(0)
    model = adapted(tiny_llama(initializer_range=0.1), trained=False, scaling=64.0)
    trainer = PanaceaTrainer(model, examples, replace(config, steps=60, batch_size=8, logging_steps=10))
    probes = preference_probes(examples, 3)
    assert preference_gap(model, probes) == 0
    trainer.train()
    assert preference_gap(model, probes) > 1
    assert losses(trainer)[-1] < losses(trainer)[0]
    # Each answer is likeliest at the vertex of its dimension.
    for dimension, answer in enumerate(ANSWERS):
        scores: list[float] = []
        for vertex in torch.eye(3):
            with torch.no_grad(), steered(model, vertex):
                scores.append(token_logprob(model, [1, 3], answer).item())
        assert scores.index(max(scores)) == dimension


@pytest.mark.slow
def test_a_resumed_run_repeats_the_whole_one(config: TrainingConfig) -> None:
    config = replace(config, steps=10, save_steps=4)

    def trainer(folder: str) -> tuple[PanaceaTrainer, nn.Module]:
        torch.manual_seed(3)
        model = adapted(trained=False, scaling=64.0)
        settings = replace(config, output_dir=config.output_dir / folder)
        return PanaceaTrainer(model, [*PAIRS, *CANDIDATES], settings), model

    whole, expected_model = trainer("whole")
    whole.train()

    # As if killed between steps 4 and 8: what the second process finds is the checkpoint of step 4.
    first, _ = trainer("resumed")
    first.add_callback(StopAfterStep5())
    first.train()
    assert [path.name for path in (config.output_dir / "resumed").iterdir()] == ["checkpoint-4"]
    second, resumed_model = trainer("resumed")
    with torch.no_grad():
        for name, parameter in resumed_model.named_parameters():
            if ".lora_" in name:
                parameter.fill_(9)
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == 10
    assert losses(second) == losses(whole)
    torch.testing.assert_close(resumed_model.state_dict(), expected_model.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_does_not(config: TrainingConfig) -> None:
    runs: list[list[float]] = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        trainer = PanaceaTrainer(adapted(scaling=8.0), PAIRS, replace(config, seed=seed))
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == runs[1] != runs[2]


def test_singular_values_have_a_rate_of_their_own_and_never_decay(config: TrainingConfig) -> None:
    config = replace(config, learning_rate=1e-3, singular_value_learning_rate=2e-2, weight_decay=0.1)
    model = adapted()
    optimizer = PanaceaTrainer(model, PAIRS, config).create_optimizer()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        tuple(sorted({names[id(p)].split(".")[-2] for p in group["params"]})): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    }
    assert groups == {("lora_A", "lora_B"): (1e-3, 0.1), ("lora_E",): (2e-2, 0.0)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 3 * 14


def test_both_rates_warm_up_and_fall_as_a_cosine(config: TrainingConfig) -> None:
    rates: list[list[float]] = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            rates.append([group["lr"] for group in kwargs["optimizer"].param_groups])

    trainer = PanaceaTrainer(adapted(), PAIRS, config)
    trainer.add_callback(Watch())
    trainer.train()
    share = [0.0, 0.5, 1.0, *(0.5 * (1 + cos(pi * i / 4)) for i in (1, 2, 3))]
    assert rates == [pytest.approx([1e-3 * s, 2e-2 * s], abs=1e-9) for s in share]


def test_forwards_that_cannot_share_a_step_equally_are_refused(config: TrainingConfig) -> None:
    with pytest.raises(ConfigError, match="3 forwards cannot share 4 examples"):
        PanaceaTrainer(adapted(), PAIRS, replace(config, accumulation=3))


def test_logs_the_parts_of_the_loss_and_the_preference_gap(config: TrainingConfig) -> None:
    model = adapted()
    trainer = PanaceaTrainer(model, [*PAIRS, *CANDIDATES], replace(config, health_steps=3, steps=6))
    trainer.train()
    history = trainer.state.log_history
    assert {"dpo", "preferred_nll", "nll"} <= {key for entry in history for key in entry}
    gaps = [(entry["step"], entry["preference_gap"]) for entry in history if "preference_gap" in entry]
    assert [step for step, _ in gaps] == [3, 6]
    assert gaps[-1][1] == pytest.approx(preference_gap(model, trainer.probes))


@pytest.mark.slow
def test_is_silent_without_progress_and_one_line_with_it(
    config: TrainingConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    PanaceaTrainer(adapted(), CANDIDATES, config).train()
    assert capfd.readouterr() == ("", "")
    PanaceaTrainer(adapted(), CANDIDATES, replace(config, progress=True, health_steps=2)).train()
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "6/6" in shown.err
    assert "preference_gap=" in shown.err


@pytest.mark.slow
def test_trains_a_base_model_as_a_whole(config: TrainingConfig) -> None:
    model = tiny_llama()
    examples = [Demonstration([1], [7, 8, 9, 2])] * 4
    trainer = PanaceaTrainer(model, examples, replace(config, steps=30, learning_rate=1e-2))
    trainer.train()
    assert losses(trainer)[-1] < 0.1 * losses(trainer)[0]
    assert model.config.use_cache


@pytest.mark.slow
def test_trains_an_adapter_without_dimensions(config: TrainingConfig) -> None:
    model = adapted(tiny_llama(), preference_dimensions=(), default_preference=())
    trainer = PanaceaTrainer(
        model, [Demonstration([1], [7, 8, 9, 2])] * 4, replace(config, steps=30, learning_rate=1e-2)
    )
    trainer.train()
    assert losses(trainer)[-1] < 0.75 * losses(trainer)[0]


def test_examples_that_do_not_fit_are_refused_by_number(config: TrainingConfig) -> None:
    wrong = [*PAIRS, PreferencePair([1], [2], [3], (0.5, 0.5))]
    with pytest.raises(ValueError, match=f"example {len(PAIRS)}: one number is needed for each of 3 dimensions"):
        PanaceaTrainer(adapted(), wrong, config)
    with pytest.raises(ValueError, match="example 0: 65 tokens are more than the model's 64 positions"):
        PanaceaTrainer(adapted(), [Demonstration([1], [2] * 64)], config)
    with pytest.raises(ConfigError, match="no examples"):
        PanaceaTrainer(adapted(), [], config)


def test_a_loss_that_is_no_number_stops_the_run(config: TrainingConfig) -> None:
    model = adapted()
    trainer = PanaceaTrainer(model, PAIRS, config)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if ".lora_A." in name).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="is nan at step 1"):
        trainer.train()


def test_a_checkpoint_is_an_adapter_in_the_format(config: TrainingConfig) -> None:
    PanaceaTrainer(adapted(), PAIRS, replace(config, save_steps=6)).train()
    written = json.loads((config.output_dir / "checkpoint-6" / "adapter_config.json").read_text())
    assert written["peft_type"] == "PANACEA"
    assert written["r"] == 5


def by_vertex(model: nn.Module, dimension: int) -> float:
    vertex = torch.eye(3)[dimension]
    with torch.no_grad(), steered(model, vertex):
        return -token_logprob(model, [1, 3], ANSWERS[dimension]).item() / len(ANSWERS[dimension])


def test_the_vertices_losses_are_logged_by_name(config: TrainingConfig) -> None:
    model = adapted()
    trainer = PanaceaTrainer(model, CANDIDATES[:1], replace(config, health_steps=6))
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "preference_gap" in entry]
    expected = [by_vertex(model, dimension) for dimension in range(3)]
    names = ("helpful", "harmless", "concise")
    assert [logged[f"vertex_loss_{name}"] for name in names] == pytest.approx(expected, abs=1e-4)


def test_the_vertices_losses_of_pairs_are_dpos(config: TrainingConfig) -> None:
    model = adapted()
    pairs = [PreferencePair([1, 3], ANSWERS[0], ANSWERS[1], (0.8, math.nan, 0.5))]
    metrics = PanaceaTrainer(model, PAIRS, config, held_out=pairs).evaluate()
    with torch.no_grad():
        with steered(model, [1, 0, 0]):
            policy = [token_logprob(model, [1, 3], answer) for answer in ANSWERS[:2]]
        with model.disable_adapter():
            reference = [token_logprob(model, [1, 3], answer) for answer in ANSWERS[:2]]
    margin = config.beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    expected = -0.8 * F.logsigmoid(margin) - 0.2 * F.logsigmoid(-margin)
    assert metrics["vertex_loss_helpful"] == pytest.approx(expected.item(), abs=1e-4)
    assert "vertex_loss_harmless" not in metrics


@pytest.mark.slow
@pytest.mark.parametrize("examples", [PAIRS, CANDIDATES], ids=["dpo", "sft"])
def test_learns_to_tell_preferences_apart_with_tchebycheff(config: TrainingConfig, examples: list[Example]) -> None:
    torch.manual_seed(0)
    model = adapted(tiny_llama(initializer_range=0.1), trained=False, scaling=64.0)
    config = replace(config, steps=80, batch_size=8, aggregation="tchebycheff", selection="loss")
    config = replace(config, learning_rate=2e-3, singular_value_learning_rate=3e-2)  # one dimension at a time is slow
    trainer = PanaceaTrainer(model, examples, config)
    for step in range(3):
        preference = trainer.batches[step]["preference"]
        assert torch.equal(preference, preference[:1].expand_as(preference))
    trainer.train()
    assert preference_gap(model, preference_probes(examples, 3)) > 1


def test_the_tchebycheff_loss_is_that_of_the_worst_dimension(config: TrainingConfig) -> None:
    model = adapted()
    ideal = (0.1, 0.2, 0.3)
    settings = replace(config, batch_size=2, aggregation="tchebycheff", selection="loss", ideal=ideal)
    trainer = PanaceaTrainer(model, CANDIDATES[:2], settings)
    batch = trainer.batches[3]  # the first whose preference is no vertex
    preference = batch["preference"][0]
    assert preference.max() < 1
    with torch.no_grad(), steered(model, preference):
        loss = trainer.compute_loss(model, dict(batch))
        terms: list[Tensor] = []
        for dimension, answer in enumerate(ANSWERS):
            nll = -sum(token_logprob(model, [1, prompt], answer) for prompt in (3, 4)) / (2 * len(answer))
            terms.append(preference[dimension] * (nll - ideal[dimension]))
    torch.testing.assert_close(loss, max(terms), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": "reward"}, "the selection must be by loss"),
        ({"ideal": (0.0, 0.0)}, "the ideal point has 2 numbers for 3 dimensions"),
    ],
)
def test_tchebycheff_settings_that_contradict_are_refused(
    config: TrainingConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PanaceaTrainer(
            adapted(), CANDIDATES, replace(config, **({"aggregation": "tchebycheff", "selection": "loss"} | changes))
        )


def test_tchebycheff_takes_no_example_with_a_preference_of_its_own(config: TrainingConfig) -> None:
    settings = replace(config, aggregation="tchebycheff", selection="loss")
    own = Demonstration([1], [2], preference=(1.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match="no example can bring its own"):
        PanaceaTrainer(adapted(), [own], settings)


@pytest.mark.slow
def test_labels_for_one_dimension_each_are_enough_to_steer(config: TrainingConfig) -> None:
    def labelled(wanted: int, other: int) -> list[float]:
        return [1.0 if d == wanted else math.nan for d in range(3)]

    examples: list[Example] = [
        PreferencePair([1, prompt], ANSWERS[a], ANSWERS[b], labelled(a, b))
        for prompt in range(3, 9)
        for a in range(3)
        for b in range(3)
        if a != b
    ]
    torch.manual_seed(0)
    model = adapted(tiny_llama(initializer_range=0.1), trained=False, scaling=64.0)
    PanaceaTrainer(model, examples, replace(config, steps=60, batch_size=8)).train()
    assert preference_gap(model, preference_probes(PAIRS, 3)) > 1


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(config: TrainingConfig) -> None:
    runs: list[list[float]] = []
    for changes in ({}, {"gradient_checkpointing": True}):
        torch.manual_seed(0)
        trainer = PanaceaTrainer(adapted(scaling=8.0), PAIRS, replace(config, **changes))  # type: ignore[arg-type]
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_trains_in_bfloat16(config: TrainingConfig) -> None:
    torch.manual_seed(0)
    model = adapted(tiny_llama(initializer_range=0.1).bfloat16(), trained=False, scaling=64.0)
    trainer = PanaceaTrainer(model, PAIRS, replace(config, steps=60, batch_size=8, bf16=True, device="cpu"))
    # Where policy and reference are the same model their log-probabilities are too, to bfloat16's last bits.
    first = trainer.compute_loss(model, dict(trainer.batches[0]))
    trainer.train()
    assert first.item() == pytest.approx(losses(trainer)[0], abs=0.05)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert preference_gap(model, preference_probes(PAIRS, 3)) > 1


@pytest.mark.slow
def test_a_rehearsal_leaves_no_trace(config: TrainingConfig) -> None:
    runs: list[list[float]] = []
    for rehearsed in (False, True):
        torch.manual_seed(0)
        trainer = PanaceaTrainer(adapted(scaling=8.0), [*PAIRS, *CANDIDATES], config)
        if rehearsed:
            trainer.rehearse()
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == runs[1]


def test_what_is_logged_goes_to_tensorboard(config: TrainingConfig, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    PanaceaTrainer(adapted(), PAIRS, replace(config, tensorboard=tmp_path / "events", health_steps=3)).train()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    for name in ("dpo", "preference_gap", "vertex_loss_helpful"):
        assert events.Scalars(f"train/{name}")


@pytest.mark.slow
def test_a_lora_adapter_becomes_the_policy_of_one_preference(config: TrainingConfig) -> None:
    """The loss is that of the preference, and what is learned is the answer that it wants."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), lora)
    assert isinstance(model, nn.Module)
    preference = (0.2, 0.1, 0.7)
    settings = replace(
        config,
        steps=60,
        batch_size=18,
        learning_rate=1e-2,
        sft_weight=0.0,
        health_steps=None,
        fixed_preference=preference,
    )
    trainer = PanaceaTrainer(model, PAIRS, settings)
    batch = trainer.batches[0]
    assert (batch["preference"] == torch.tensor(preference)).all()
    targets = batch["pair_probabilities"] @ torch.tensor(preference)
    with torch.no_grad():
        # It changes nothing yet, so all margins are 0 and the loss is that of a coin.
        assert trainer.compute_loss(model, dict(batch)).item() == pytest.approx(math.log(2), abs=1e-6)
        assert ((targets > 0) & (targets < 1)).any()
    trainer.train()
    with torch.no_grad():
        gains = [
            token_logprob(model, [1, 5], list(answer)) - reference
            for answer, reference in zip(ANSWERS, _base_logprobs(model), strict=True)
        ]
    assert gains[2] == max(gains)


def _base_logprobs(model: Any) -> list[Tensor]:
    with model.disable_adapter():
        return [token_logprob(model, [1, 5], list(answer)) for answer in ANSWERS]


def test_a_fixed_preference_has_a_number_for_each_dimension(config: TrainingConfig) -> None:
    with pytest.raises(ConfigError, match="the fixed preference has 2 numbers for 3 dimensions"):
        PanaceaTrainer(adapted(), PAIRS, replace(config, fixed_preference=(0.5, 0.5)))


def test_a_reference_that_is_known_is_not_computed_again(config: TrainingConfig) -> None:
    known = PanaceaTrainer(adapted(), PAIRS, config)
    reference = reference_logprobs(adapted(), PAIRS, progress=False)
    given = PanaceaTrainer(adapted(), PAIRS, config, held_out=PAIRS[:2], reference=reference)
    assert torch.equal(known.batches[0]["pair_reference"], given.batches[0]["pair_reference"])
    shifted = PanaceaTrainer(adapted(), PAIRS, config, reference=reference + 1)
    assert torch.equal(known.batches[0]["pair_reference"] + 1, shifted.batches[0]["pair_reference"])

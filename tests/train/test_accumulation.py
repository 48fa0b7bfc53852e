"""A step is the same step, however many forwards share it: loss, its parts, gradient, draws and order. In float64."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import TrainerCallback

from panacea.errors import ConfigError
from panacea_train.batches import Sampling, StepBatches
from panacea_train.step_loss import LossParts, StepLoss
from panacea_train.trainer import PanaceaTrainer
from panacea_train.training_config import TrainingConfig
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair
from tests.train.tiny import PEFT_WARNING, VOCABULARY, adapted, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

TOLERANCE = 1e-12
"""Of values near 1, in float64: what the order of a sum may round."""

LONGEST = 50


def _ids(rng: np.random.Generator, most: int) -> list[int]:
    ids: list[int] = rng.integers(1, VOCABULARY, int(rng.integers(1, most + 1))).tolist()
    return ids


def _labels(rng: np.random.Generator) -> list[float]:
    """Labels of which some are missing, one at least is there."""
    labels = rng.random(3)
    labels[rng.random(3) < 0.3] = math.nan
    return labels.tolist() if not np.isnan(labels).all() else [0.9, math.nan, 0.1]


def _pair(rng: np.random.Generator) -> Example:
    return PreferencePair(_ids(rng, 9), _ids(rng, LONGEST), _ids(rng, LONGEST), _labels(rng))


def _candidates(rng: np.random.Generator) -> Example:
    answers = [_ids(rng, LONGEST) for _ in range(3)]
    labelled = np.where(rng.random(3) < 0.3, math.nan, 1.0)
    return Candidates(_ids(rng, 9), answers, (rng.random((3, 3)) * labelled).tolist())


def _demonstration(rng: np.random.Generator) -> Example:
    return Demonstration(_ids(rng, 9), _ids(rng, LONGEST), weight=float(rng.integers(0, 3)))


def _own(rng: np.random.Generator) -> Example:
    return Demonstration(_ids(rng, 9), _ids(rng, LONGEST), preference=rng.dirichlet([1.0] * 3).tolist())


KINDS = {
    "dpo": [_pair],
    "sft": [_candidates],
    "shown": [_demonstration, _own],
    "mixed": [_pair, _candidates, _demonstration, _own],
    "mixed, drawn alone": [_pair, _candidates, _demonstration],
}


def _examples(kind: str, count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    makers = KINDS[kind]
    return [makers[index % len(makers)](rng) for index in range(count)]


LINEAR: dict[str, Any] = {}
TCHEBYCHEFF: dict[str, Any] = {"aggregation": "tchebycheff", "selection": "loss"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("dpo", LINEAR),
    ("dpo", TCHEBYCHEFF),
    ("sft", LINEAR),
    ("sft", {"selection": "loss"}),
    ("sft", TCHEBYCHEFF | {"ideal": (0.1, 0.2, 0.3)}),
    ("shown", LINEAR),
    ("mixed", {"selection": "loss"}),
    ("mixed, drawn alone", TCHEBYCHEFF),
]


def _step(
    examples: list[Example], changes: dict[str, Any], forwards: int, step: int
) -> tuple[dict[str, Tensor], LossParts]:
    """The gradient and the loss of a step in so many forwards."""
    aggregation = changes.get("aggregation", "linear")
    sampling = Sampling(
        batch_size=8,
        dimensions=3,
        seed=0,
        vertex_probability=0.0,
        dirichlet_alpha=1.0,
        selection=changes.get("selection", "reward"),
        one_preference=aggregation == "tchebycheff",
        forwards=forwards,
    )
    # Any reference will do.
    reference = -np.random.default_rng(1).random((len(examples), 2), dtype=np.float32) * 30
    batch = StepBatches(examples, sampling, step + 1, reference)[step]
    assert len(batch["forwards"]) == min(forwards, len(examples))
    model = adapted(tiny_llama()).double()
    loss = StepLoss(aggregation, beta=0.3, sft_weight=0.7, ideal=torch.tensor(changes.get("ideal", (0.0,) * 3)))
    parts = loss.backward(model, batch, nullcontext)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, parts


@pytest.mark.parametrize(
    ("kind", "changes"), CASES, ids=[f"{kind}-{'-'.join(map(str, c.values()))}" for kind, c in CASES]
)
@pytest.mark.parametrize("count", [20, 7], ids=["even", "ragged"])
def test_a_step_does_not_depend_on_the_number_of_its_forwards(kind: str, changes: dict[str, Any], count: int) -> None:
    """With 7 examples a step has 7, which 2, 4 and 8 forwards cannot share equally."""
    examples = _examples(kind, count, seed=3)
    for step in range(2):
        gradients, whole = _step(examples, changes, 1, step)
        assert max(gradient.abs().max().item() for gradient in gradients.values()) > 1e-3
        for forwards in (2, 4, 8):
            shared_gradients, shared = _step(examples, changes, forwards, step)
            assert shared_gradients.keys() == gradients.keys()
            torch.testing.assert_close(shared_gradients, gradients, rtol=TOLERANCE, atol=TOLERANCE)
            torch.testing.assert_close(shared, whole, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("kind", "changes"), [CASES[-2], CASES[-1]], ids=["linear", "tchebycheff"])
def test_the_gradient_is_that_of_the_loss(kind: str, changes: dict[str, Any]) -> None:
    """By torch alone, with all forwards in one graph."""
    examples = _examples(kind, 8, seed=5)
    gradients, parts = _step(examples, changes, 4, 0)
    model = adapted(tiny_llama()).double()
    settings = TrainingConfig(Path("unused"), steps=1, batch_size=8, sft_weight=0.7, health_steps=None, progress=False)
    settings = replace(settings, vertex_probability=0.0, device="cpu", **changes)
    reference = -np.random.default_rng(1).random((len(examples), 2), dtype=np.float32) * 30
    trainer = PanaceaTrainer(model, examples, settings, reference=reference)
    loss = trainer.compute_loss(model, dict(trainer.batches[0]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    torch.testing.assert_close(parts.loss, loss.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(gradients, expected, rtol=TOLERANCE, atol=TOLERANCE)


@dataclass
class Logged(TrainerCallback):
    """What was logged, and the clipped gradients of the last step."""

    lines: list[dict[str, float]] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.gradients = [p.grad.clone() for p in kwargs["model"].parameters() if p.grad is not None]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs:
            self.lines.append(dict(logs))


def test_a_run_logs_and_clips_the_same_for_every_accumulation(tmp_path: Path) -> None:
    """Eight lines of 1 to 62 tokens, by the trainer itself."""
    rng = np.random.default_rng(0)
    examples: list[Example] = [
        Demonstration([1], rng.integers(1, VOCABULARY, length).tolist()) for length in (1, 2, 5, 9, 17, 30, 50, 62)
    ]
    runs: list[Logged] = []
    for accumulation in (1, 8):
        config = TrainingConfig(tmp_path, steps=3, batch_size=8, logging_steps=2, max_grad_norm=0.1, progress=False)
        trainer = PanaceaTrainer(
            adapted(tiny_llama()).double(), examples, replace(config, accumulation=accumulation, device="cpu")
        )
        runs.append(Logged())
        trainer.add_callback(runs[-1])
        trainer.train()
    whole, shared = runs
    assert whole.lines[0]["grad_norm"] > 0.1
    for mine, other in zip(shared.lines, whole.lines, strict=True):
        assert mine == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)
    torch.testing.assert_close(shared.gradients, whole.gradients, rtol=TOLERANCE, atol=TOLERANCE)


def test_dropout_of_the_base_is_off_so_that_a_step_is_a_function_of_its_examples(tmp_path: Path) -> None:
    gradients: list[Any] = []
    for accumulation in (1, 4):
        model = adapted(tiny_llama(attention_dropout=0.5)).double()
        config = TrainingConfig(tmp_path, steps=1, batch_size=8, progress=False, accumulation=accumulation)
        trainer = PanaceaTrainer(model, _examples("dpo", 8, seed=1), replace(config, device="cpu", health_steps=None))
        outcome = Logged()
        trainer.add_callback(outcome)
        trainer.train()
        gradients.append(outcome.gradients)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=TOLERANCE, atol=TOLERANCE)


def test_an_adapter_with_dropout_of_its_own_is_refused(tmp_path: Path) -> None:
    lora = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    config = TrainingConfig(tmp_path, steps=1, progress=False, fixed_preference=(1.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match="set lora_dropout to 0"):
        PanaceaTrainer(get_peft_model(tiny_llama(), lora), _examples("dpo", 8, seed=1), config)

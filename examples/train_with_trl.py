"""Trains an adapter with TRL's own DPOTrainer.

    pip install 'panacea-server[train]' trl
    python examples/train_with_trl.py my-adapter
    panacea serve --adapter my-adapter

Panacea is a method of peft like LoRA, so its config takes the place of a LoraConfig. This example adds two things to
TRL: a preference for each pair of a batch, and a forward pass under these preferences. The chosen answer of a pair
depends on the dimension. For each pair, one dimension is drawn with the preference's weights as probabilities. The
expected loss is therefore the weighted sum of all dimensions' losses, which is linear scalarisation. As with LoRA, TRL
takes the reference's log-probabilities from the same model with the adapter off, and computes layers twice to save
memory.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

import panacea
from panacea_train.method import PanaceaConfig, save_adapter, steered
from panacea_train.preference_draws import sample_preferences
from panacea_train.trainer import parameter_groups

DEMO_BASE = Path(panacea.__file__).parent / "demo" / "base"

DIMENSIONS = ["warm", "brief"]
WARM, BRIEF = "What a lovely idea!", "Sure."
QUESTIONS = ["How do I boil an egg?", "How do I cook rice?", "How do I sharpen a knife?", "How do I plant bulbs?"]

# Each pair is a conversation with two answers. `chosen_is_better` says for each dimension whether "chosen" is better.
PAIRS = [
    {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": WARM}],
        "rejected": [{"role": "assistant", "content": BRIEF}],
        "chosen_is_better": [True, False],
    }
    for question in QUESTIONS
]


class PreferencesDrawn:
    """A collator that draws a preference for each pair, and orders the pair's answers by one dimension."""

    def __init__(self, collate: DataCollatorForPreference, seed: int) -> None:
        self.collate = collate
        self.rng = np.random.default_rng(seed)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        preference = sample_preferences(self.rng, len(examples), len(DIMENSIONS))
        oriented = []
        for example, weights in zip(examples, preference.astype(np.float64), strict=True):
            a, b = example["chosen_ids"], example["rejected_ids"]
            if not example["chosen_is_better"][self.rng.choice(len(weights), p=weights / weights.sum())]:
                a, b = b, a
            oriented.append({"prompt_ids": example["prompt_ids"], "chosen_ids": a, "rejected_ids": b})
        # The chosen answers of all pairs come first, then the rejected ones.
        return {**self.collate(oriented), "preference": torch.from_numpy(np.concatenate([preference, preference]))}


class PanaceaDPOTrainer(DPOTrainer):
    """TRL's trainer, run under the preferences of each batch, with a separate learning rate for the singular values."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        with steered(model, inputs.pop("preference")):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = parameter_groups(self.model, singular_value_learning_rate=20 * self.args.learning_rate)
            self.optimizer = torch.optim.AdamW(groups, lr=self.args.learning_rate)
        return self.optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the adapter")
    parser.add_argument("--base", type=Path, default=DEMO_BASE, help="folder of the base model (default: the demo's)")
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    settings = DPOConfig(
        output_dir=str(arguments.out),
        max_steps=arguments.steps,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        beta=0.3,
        loss_type=["sigmoid", "sft"],  # the second keeps the text of the answers intact
        loss_weights=[1.0, 0.1],
        remove_unused_columns=False,  # the collator needs chosen_is_better
        bf16=torch.cuda.is_available(),
        logging_steps=20,
        save_strategy="no",
        report_to="none",
    )
    trainer = PanaceaDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(PAIRS),
        data_collator=PreferencesDrawn(DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id), settings.seed),
        processing_class=tokenizer,
        peft_config=PanaceaConfig(task_type="CAUSAL_LM", preference_dimensions=DIMENSIONS),
    )
    trainer.train()
    save_adapter(trainer.model, arguments.out, base=arguments.base)
    print(f"Now: panacea serve --adapter {arguments.out}")


if __name__ == "__main__":
    main()
